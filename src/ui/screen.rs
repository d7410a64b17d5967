//! The screens of the app.

/// The screens, in the order of the rail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// Three ways to begin.
    #[default]
    Start,
    /// The config of the next run.
    Setup,
    /// All runs and studies.
    Runs,
    /// Series over updates.
    Curves,
    /// What each expert takes.
    Experts,
    /// Texts of a model.
    Sample,
    /// What a study shows.
    Compare,
    /// What makes a conclusion worthless.
    Audit,
    /// The files of a study.
    Report,
    /// Adapter and costs.
    Machine,
}

impl Screen {
    /// All, in order.
    pub const ALL: [Screen; 10] = [
        Screen::Start,
        Screen::Setup,
        Screen::Runs,
        Screen::Curves,
        Screen::Experts,
        Screen::Sample,
        Screen::Compare,
        Screen::Audit,
        Screen::Report,
        Screen::Machine,
    ];

    /// Its word on the rail.
    pub fn word(self) -> &'static str {
        match self {
            Screen::Start => "Start",
            Screen::Setup => "Setup",
            Screen::Runs => "Runs",
            Screen::Curves => "Curves",
            Screen::Experts => "Experts",
            Screen::Sample => "Sample",
            Screen::Compare => "Compare",
            Screen::Audit => "Audit",
            Screen::Report => "Report",
            Screen::Machine => "Machine",
        }
    }
}
