#!/bin/sh
# Takes the pictures of the README from the real desktop window, on a screen of its own (Xvfb, xdotool and ImageMagick):
#   web/pictures/take.sh APP FOLDER    where FOLDER/runs has the run `quickstart` and, as its only study, a finished `exp8-as_run`.
set -eu
pictures=$(cd "$(dirname "$0")" && pwd); app=$(realpath "$1"); cd "$2"
export DISPLAY=:77 XDG_CONFIG_HOME="$(mktemp -d)"
Xvfb "$DISPLAY" -screen 0 1280x800x24 & screen=$!
sleep 1
"$app" runs & window=$!
trap 'kill $window $screen; rm -r "$XDG_CONFIG_HOME"' EXIT
sleep 10
xdotool windowfocus "$(xdotool search --name moelab | head -1)"
click() { xdotool mousemove "$1" "$2" sleep 0.3 click 1; sleep "$3"; }
take() { xdotool mousemove 640 790; sleep 1; import -window root -strip "$pictures/$1.png"; }
click 1250 24 1 # light
xdotool key 3; sleep 3
click 109 213 1 # the run
xdotool key 4; sleep 5; take curves
xdotool key 5; sleep 5; take experts
xdotool key 3; sleep 3
click 754 246 30 # the verdict of the study
take verdict
