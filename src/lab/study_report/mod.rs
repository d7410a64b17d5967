//! The report of a study: one Markdown file and one self-contained HTML file, from what its runs stored.
//!
//! Every number is computed from the runs, none is typed. Arms are never ranked: they stand in the order of the study, each with its interval and
//! its verdict. While a refusal of the audit is unresolved, the arms that it is about get no verdict, and the report says why; if it is about
//! all of them, there is no answer. A refusal that was overridden is stated beside the answer, with its reason. Runs that failed or are missing are counted.
//!
//! [`report`] makes the [`Document`]; `study.rs` is its input, `sections.rs` its evidence, `charts.rs` its figures.

mod charts;
mod document;
mod gather;
mod sections;
mod study;

pub use document::{Block, Document, Span, Table};

pub use gather::{Beside, gather};
pub use study::{Judged, Missing, Study, StudyArm};

use super::export::csv;
use super::verdict::CAVEATS;
use document::{Text, plain, strong};

/// The report of a study.
pub fn report(study: &Study) -> Document {
    let mut blocks = vec![Block::Heading(1, study.question.clone())];
    blocks.extend(answer(study));
    blocks.push(Block::Heading(2, "Arms".into()));
    blocks.extend(sections::arms(study));
    if !study.claims.is_empty() {
        blocks.push(Block::Heading(2, "Claims".into()));
        blocks.push(Block::Table(sections::claims(study)));
    }
    blocks.push(Block::Heading(2, "Curves".into()));
    blocks.extend(charts::curves(study));
    blocks.extend(charts::loads(study));
    blocks.extend(charts::rates(study));
    blocks.push(Block::Heading(2, "Decisions".into()));
    blocks.extend(sections::decisions(study));
    blocks.push(Block::Heading(2, "Audit".into()));
    blocks.extend(sections::audit(study));
    blocks.push(Block::Heading(2, "Baselines".into()));
    blocks.extend(sections::baselines(study));
    blocks.push(Block::Heading(2, "Configs".into()));
    blocks.extend(sections::configs(study));
    blocks.push(Block::Heading(2, "Runs".into()));
    blocks.extend(sections::runs(study));
    blocks.push(Block::Heading(2, "How to repeat it".into()));
    blocks.extend(sections::repeat(study));
    Document { title: study.question.clone(), blocks }
}

/// The files of a report that are text, by name: the document as Markdown and as HTML, its tables as CSV, its figures as SVG.
pub fn files(study: &Study, document: &Document) -> Vec<(String, String)> {
    let mut files = vec![
        ("report.md".to_string(), document.to_markdown("")),
        ("report.html".to_string(), document.to_html()),
        ("results.csv".to_string(), csv::runs(&study.runs)),
        ("evaluations.csv".to_string(), csv::evaluations(&study.runs)),
    ];
    files.extend(document.figures().into_iter().map(|(name, figure)| (format!("{name}.svg"), figure.to_svg())));
    files
}

/// The answer, or why there is none.
fn answer(study: &Study) -> Vec<Block> {
    let unresolved: Vec<Text> = study.unresolved().map(|finding| plain(format!("{}: {}", finding.check, finding.message))).collect();
    let refusals = if unresolved.len() == 1 { "a refusal".to_string() } else { format!("{} refusals", unresolved.len()) };
    if !unresolved.is_empty() && study.verdicts().is_empty() {
        let text = format!(
            "No answer: {refusals} of the audit must be resolved first. What the runs measured is below, without verdicts. \
             Correct the study, or override a check in its `[overrides]` with the reason."
        );
        return vec![Block::Notice(strong(text)), Block::List(unresolved)];
    }
    let Some(last) = study.judged.first() else {
        return vec![Block::Notice(strong("No answer yet: no arm has been compared with the control."))];
    };
    let withheld = study.withheld();
    let mut blocks = vec![Block::Paragraph(strong(last.judgement.without(&withheld).sentence()))];
    if !unresolved.is_empty() {
        let text = format!(
            "No verdict on {}: {refusals} of the audit must be resolved first. Correct the study, or override a check in its `[overrides]` \
             with the reason.",
            withheld.join(", ")
        );
        blocks.extend([Block::Notice(strong(text)), Block::List(unresolved)]);
    }
    for judged in &study.judged {
        let sentences = judged.judgement.without(&withheld).sentences();
        if study.judged.len() > 1 {
            blocks.push(Block::Paragraph(plain(format!("Compared {}:", judged.place))));
        }
        blocks.push(Block::List(sentences.into_iter().map(plain).collect()));
    }
    let overridden: Vec<Text> = study
        .findings
        .iter()
        .flatten()
        .filter_map(|finding| finding.overridden.as_ref().map(|reason| (finding, reason)))
        .map(|(finding, reason)| plain(format!("{}: {} Overridden: {reason}", finding.check, finding.message)))
        .collect();
    if !overridden.is_empty() {
        blocks.push(Block::Notice(plain("This answer stands over checks of the audit that were overridden:")));
        blocks.push(Block::List(overridden));
    }
    blocks
        .push(Block::Details("What the verdicts assume".into(), vec![Block::List(CAVEATS.iter().map(|caveat| plain(*caveat)).collect())]));
    blocks
}
