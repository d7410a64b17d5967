//! Rewinds a log to an update when a run is resumed or rolled back.
//!
//! No readable line is removed: the lines of later updates stay, and a `rewound` line marks them as obsolete. The mark and the checks
//! for new lines only consider the other lines.

use crate::{
    lab::{
        files::METRICS,
        log::{self, Line, Log, Marker},
        store::StoreError,
    },
    run::{
        arrays::{ArrayHead, ArrayKind},
        checkpoint::LogMark,
        records::{self, Event, Header, Incident, IncidentRecord, Rewinds, RewoundRecord, Time},
        series::RecordKind,
    },
};

/// The lines of the newest update in `metrics.jsonl`: no line may repeat or precede them.
#[derive(Default)]
pub struct Newest {
    pub update: u32,
    pub events: Vec<Event>,
}

impl Newest {
    /// Whether `event` may be added. It may not precede the newest update, nor be its second `update` or `eval`; a sample or
    /// an incident that is there already, but for its time, is no news (`false`): a finished run that is resumed draws the
    /// same samples again.
    pub fn accepts(&self, event: &Event) -> Result<bool, StoreError> {
        let Some(update) = event.update().filter(|update| *update <= self.update) else { return Ok(true) };
        let is_there = |kind: fn(&Event) -> bool| self.events.iter().any(kind);
        let (kind, doubled) = match event {
            Event::Update(_) => ("update", is_there(|event| matches!(event, Event::Update(_)))),
            Event::Eval(_) => ("eval", is_there(|event| matches!(event, Event::Eval(_)))),
            Event::Sample(_) => ("sample", false),
            Event::Incident(_) | Event::Header(_) | Event::Rewound(_) => ("incident", false),
        };
        if doubled || update < self.update {
            return Err(StoreError::Doubled { kind, update });
        }
        Ok(!self.events.contains(&event.timeless()))
    }

    pub fn add(&mut self, event: &Event) {
        let Some(update) = event.update() else { return };
        if update > self.update {
            *self = Self { update, events: Vec::new() };
        }
        self.events.push(event.timeless());
    }
}

/// The facts about the log in the checkpoints of an update.
#[derive(Default)]
pub struct Marks {
    pub logs: Vec<LogMark>,
    /// The hash of the config, where the release that saved the checkpoint had one for all of it.
    pub config: Option<String>,
}

/// A rewound log.
#[derive(Default)]
pub struct LogRewind {
    /// Every line, the last of which says that it went back, if it did.
    pub text: String,
    pub newest: Newest,
    pub marker: Marker,
    pub sessions: u32,
    pub warnings: Vec<String>,
    /// The heads of the array records that the lines of the run as it stands name.
    pub arrays: Vec<ArrayHead>,
    /// A checkpoint's mark fits the lines so far, or it is known that some are lost.
    is_whole: bool,
    is_known_to_lack: bool,
    /// Lines of later updates, and the newest of these.
    later: (u64, u32),
}

impl LogRewind {
    /// Rewinds to `update`. A line that cannot be read is dropped; one that the mark of the checkpoint counts is replaced by an incident.
    ///
    /// # Errors
    /// A log that was cut or is of another run.
    pub fn new(text: Option<&str>, update: u32, marks: &Marks, config: &str) -> Result<Self, StoreError> {
        // A damaged line may have been history, or of updates that are made again: then the mark fits the others.
        if !marks.logs.is_empty() {
            let rewind = Self::read(text, update, marks, config, false)?;
            if rewind.is_whole {
                return Ok(rewind.closed(update));
            }
        }
        let rewind = Self::read(text, update, marks, config, true)?;
        if rewind.is_whole || rewind.is_known_to_lack {
            return Ok(rewind.closed(update));
        }
        let (wanted, found) = (marks.logs.iter().map(|mark| mark.lines).max(), rewind.marker.lines());
        Err(StoreError::LogLost { update, wanted, found })
    }

    fn read(text: Option<&str>, update: u32, marks: &Marks, config: &str, replaces: bool) -> Result<Self, StoreError> {
        let mut lines = Log::parse(text.unwrap_or_default());
        let times = lines.lines.iter().filter_map(|line| line.event.as_ref().ok()?.time());
        let sessions = times.map(|time| time.session + 1).max().unwrap_or(u32::from(text.is_some()));
        let mut log = Self { sessions, ..Self::default() };
        // The lines with which the log must start, according to the checkpoint.
        let wanted = marks.logs.iter().map(|mark| mark.lines).max();
        log.warnings.extend(lines.warning.take());
        let mut rewinds = Rewinds::default();
        let position = |line: &Line| line.number as u64;
        lines.lines.iter().for_each(|line| line.event.iter().for_each(|event| rewinds.note(position(line), event)));
        let rewinds = rewinds.finish();
        log.first_line(text, &mut lines.lines, marks, config)?;
        log.is_whole |= marks.logs.contains(&log.marker.mark());
        let mut time = Time::default();
        for line in lines.lines {
            let accepted = match &line.event {
                Ok(Event::Rewound(_)) => Ok(None),
                Ok(event) if event.update().is_some_and(|at| !rewinds.keeps(position(&line), at)) => Ok(None),
                Ok(event) if event.update().is_some_and(|at| at > update) => {
                    log.later = (log.later.0 + 1, log.later.1.max(event.update().unwrap_or_default()));
                    Ok(None)
                }
                Ok(event) => log.newest.accepts(event).map(|is_news| is_news.then_some(event)).map_err(|error| error.to_string()),
                Err(problem) => Err(problem.to_string()),
            };
            match accepted {
                Ok(Some(event)) => {
                    time = event.time().copied().unwrap_or(time);
                    log.is_known_to_lack |= matches!(event, Event::Incident(record) if record.incident == Incident::LogDamaged);
                    log.arrays.extend(line.arrays.and_then(|check| array_head(event, check)));
                    log.push(event, &line.body);
                }
                Ok(None) => log.text += &log::seal(&line.body),
                Err(problem) => {
                    log.warnings.push(format!("{METRICS}:{}: dropped, {problem}", line.number));
                    let is_before = wanted.is_some_and(|wanted| log.marker.lines() < wanted);
                    if replaces && (is_before || log.newest.update < update) {
                        log.is_known_to_lack = true;
                        log.push_incident(format!("line {} could not be read: {problem}", line.number), time);
                    }
                }
            }
            log.is_whole |= marks.logs.contains(&log.marker.mark());
        }
        // Earlier releases logged every update and kept no mark.
        log.is_whole |= wanted.is_none() && log.newest.update == update;
        if text.is_none() && !log.is_whole {
            log.is_known_to_lack = true;
            let detail = format!("{METRICS} was missing: the lines up to update {update} are lost");
            log.warnings.push(detail.clone());
            log.newest.update = update;
            log.push_incident(detail, time);
        }
        Ok(log)
    }

    /// What became history when it went back to `to`.
    pub fn rewound(&self, to: u32) -> Option<RewoundRecord> {
        let (lines, from) = self.later;
        (lines > 0).then_some(RewoundRecord { to, from, lines })
    }

    /// With the line that says that it went back.
    fn closed(mut self, to: u32) -> Self {
        if let Some(record) = self.rewound(to) {
            self.text += &log::seal(&log::body_of(&Event::Rewound(record), None));
        }
        self
    }

    /// Keeps the first line, or recreates it.
    fn first_line(&mut self, text: Option<&str>, lines: &mut Vec<Line>, marks: &Marks, config: &str) -> Result<(), StoreError> {
        let first = (!lines.is_empty()).then(|| lines.remove(0));
        if let Some(Line { event: Ok(Event::Header(header)), body, .. }) = &first {
            if header.schema > records::SCHEMA {
                let (found, known) = (header.schema, records::SCHEMA);
                return Err(StoreError::Unreadable(format!("{METRICS}:1: schema {found}, this build reads {known}")));
            }
            let is_foreign = marks.logs.is_empty() && marks.config.as_ref().is_some_and(|config| *config != header.config);
            if is_foreign {
                return Err(StoreError::LogLost { update: 0, wanted: None, found: lines.len() as u64 + 1 });
            }
            self.push(&Event::Header(header.clone()), body);
            return Ok(());
        }
        let header = Event::Header(Header { schema: records::SCHEMA, config: config.to_string() });
        self.push(&header, &log::body_of(&header, None));
        if text.is_some() {
            let problem =
                first.as_ref().and_then(|line| line.event.as_ref().err()).map_or("it is missing".to_string(), ToString::to_string);
            self.warnings.push(format!("{METRICS}:1: the first line is written again, {problem}"));
        }
        // A line that says something else is none of ours to drop.
        lines.splice(0..0, first.filter(|line| line.event.is_ok()));
        Ok(())
    }

    fn push(&mut self, event: &Event, body: &str) {
        self.newest.add(event);
        self.marker.add(body);
        self.text += &log::seal(body);
    }

    fn push_incident(&mut self, detail: String, time: Time) {
        let (update, incident) = (self.newest.update, Incident::LogDamaged);
        let event = Event::Incident(IncidentRecord { update, incident, detail, since: None, time });
        self.push(&event, &log::body_of(&event, None));
    }
}

/// The head of the array record of a line.
fn array_head(event: &Event, check: u32) -> Option<ArrayHead> {
    let kind = match event {
        Event::Update(_) => RecordKind::Update,
        Event::Eval(_) => RecordKind::Eval,
        _ => return None,
    };
    Some(ArrayHead { kind: ArrayKind::Of(kind), update: event.update()?, check })
}
