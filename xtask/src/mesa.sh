#!/bin/sh
# Fetches a lavapipe with cooperative matrices (Mesa 26 or newer) from Debian testing into a folder of its own, with its own glibc, and
# writes FOLDER/run, which runs an ordinary program against it; and spirv-val, which knows their SPIR-V. No root, nothing is installed, the system stays as it is.
#   mesa.sh FOLDER
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
lib=$dir/root/usr/lib/x86_64-linux-gnu
mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
: > "$dir/apt/status"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$') || { echo "the apt sources name no Debian mirror"; exit 2; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror testing main" > "$dir/apt/sources.list"
apt() {
    apt-get -qq -o Dir::Etc::SourceList="$dir/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State::Lists="$dir/apt/lists" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache" -o Debug::NoLocking=1 \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}
apt update
apt install --download-only --yes --no-install-recommends mesa-vulkan-drivers libvulkan1 libgcc-s1 spirv-tools
for deb in "$dir"/apt/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$dir" --wildcards --one-top-level=root './usr/lib/x86_64-linux-gnu/*.so*' './usr/bin/spirv-val' 2> /dev/null || true
done
for driver in "$lib"/libvulkan_*.so; do
    case $driver in *_lvp.so) ;; *) rm "$driver" ;; esac
done
dpkg-deb -f "$dir"/apt/cache/archives/mesa-vulkan-drivers_*.deb Version > "$dir/version"
# A full path: the old loader would take a bare name for the system's driver. A child outside `run` then finds no adapter, which is loud.
printf '{"ICD":{"api_version":"1.4.354","library_path":"%s"},"file_format_version":"1.0.1"}\n' "$lib/libvulkan_lvp.so" > "$dir/lvp.json"
rm -rf "$dir/apt"
cat > "$dir/run.new" << END
#!/bin/sh
export VK_DRIVER_FILES=$dir/lvp.json VK_ICD_FILENAMES=$dir/lvp.json VK_LOADER_LAYERS_DISABLE='~implicit~'
exec $lib/ld-linux-x86-64.so.2 --library-path $lib "\$@"
END
# Of the test programs those of ops and models: others start programs of their own, which would find no driver.
cat > "$dir/run-tests" << 'END'
#!/bin/sh
case ${1##*/} in ops-* | model-*) exec "${0%/*}/run" "$@" ;; *) exec "$@" ;; esac
END
chmod +x "$dir/run.new" "$dir/run-tests"
mv "$dir/run.new" "$dir/run"
