//! A report as blocks, written as Markdown or as HTML: both say the same, because they are written from the same blocks.
//!
//! Texts are stored as they are and escaped when they are written, so that a name from outside cannot become a heading, a link or a script.
//! The HTML is one file without scripts and without anything from elsewhere: figures are inline SVG with a title, and each is followed by its
//! numbers as a table. Its policy forbids all requests.

use std::fmt::Write;

use crate::lab::{
    figure::{Figure, escape},
    report::{fenced, inline},
};

/// A part of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Span {
    /// As it is.
    Plain(String),
    /// Emphasised.
    Strong(String),
    /// A name as a program knows it.
    Code(String),
}

/// A text.
pub type Text = Vec<Span>;

/// A text without emphasis.
pub fn plain(text: impl Into<String>) -> Text {
    vec![Span::Plain(text.into())]
}

/// An emphasised text.
pub fn strong(text: impl Into<String>) -> Text {
    vec![Span::Strong(text.into())]
}

/// A name as a program knows it.
pub fn code(text: impl Into<String>) -> Text {
    vec![Span::Code(text.into())]
}

/// The name of a figure's files: without what a file system or a link may refuse.
pub fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns, each with whether its cells are numbers.
    pub columns: Vec<(String, bool)>,
    /// The rows, each with a cell for every column. The first cell is the row's name.
    pub rows: Vec<Vec<Text>>,
}

/// A block.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A heading; 1 is the title.
    Heading(u8, String),
    /// A paragraph.
    Paragraph(Text),
    /// A paragraph that must not be missed.
    Notice(Text),
    /// Items.
    List(Vec<Text>),
    /// A table.
    Table(Table),
    /// A figure, with its numbers.
    Figure {
        /// Name of its files without ending.
        name: String,
        /// The drawing.
        figure: Figure,
        /// What it shows and how to read it.
        caption: String,
        /// Its numbers.
        numbers: Table,
    },
    /// Lines of code.
    Code {
        /// The language.
        language: &'static str,
        /// The lines.
        text: String,
    },
    /// Blocks that a reader may skip.
    Details(String, Vec<Block>),
}

/// A report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Title of the page.
    pub title: String,
    /// Its blocks.
    pub blocks: Vec<Block>,
}

/// The style: dark on white, one column, and nothing lost on paper.
const STYLE: &str = "\
:root{color-scheme:light}
body{margin:0 auto;max-width:960px;padding:24px;background:#fff;color:#1b1d1f;font:15px/1.5 Ubuntu,'Segoe UI','Helvetica Neue',Arial,sans-serif}
h1{font-size:26px;line-height:1.25;margin:0 0 16px}
h2{font-size:20px;margin:40px 0 8px;border-bottom:1px solid #e3e3e0;padding-bottom:4px}
h3{font-size:15px;margin:24px 0 8px}
.notice{border-left:4px solid #b26a00;background:#fdf6ec;padding:8px 16px}
.answer{font-size:18px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:8px 0 16px;font-variant-numeric:tabular-nums}
caption{text-align:left;color:#5e6468;font-size:13px;padding-bottom:4px}
th,td{padding:4px 16px 4px 0;border-bottom:1px solid #e3e3e0;text-align:left;vertical-align:top;font-weight:normal}
thead th{color:#5e6468;font-size:13px}
.number{text-align:right}
figure{margin:16px 0}
figure svg{max-width:100%;height:auto;display:block}
figcaption,summary{color:#5e6468;font-size:13px}
code,pre{font:13px/1.45 Hack,Consolas,'DejaVu Sans Mono',monospace}
pre{background:#fbfbfa;border:1px solid #e3e3e0;border-radius:4px;padding:12px;overflow-x:auto;white-space:pre-wrap}
@media print{body{max-width:none;padding:0;font-size:11pt}figure,tr,pre{break-inside:avoid}h2,h3{break-after:avoid}details::details-content{content-visibility:visible;height:auto}}
";

impl Document {
    /// The figures of the document with their names, in order.
    pub fn figures(&self) -> Vec<(&str, &Figure)> {
        fn of<'a>(blocks: &'a [Block], found: &mut Vec<(&'a str, &'a Figure)>) {
            for block in blocks {
                match block {
                    Block::Figure { name, figure, .. } => found.push((name, figure)),
                    Block::Details(_, blocks) => of(blocks, found),
                    _ => {}
                }
            }
        }
        let mut found = Vec::new();
        of(&self.blocks, &mut found);
        found
    }

    /// As Markdown. Figures are links to `NAME.svg`, after `figures`: empty if they stand beside it, or their folder as in `results/`.
    pub fn to_markdown(&self, figures: &str) -> String {
        let mut text = String::new();
        write_markdown(&mut text, &self.blocks, figures).expect("writing to a String cannot fail");
        text.trim_end().to_string() + "\n"
    }

    /// As one self-contained HTML file.
    pub fn to_html(&self) -> String {
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
            escape(&self.title)
        );
        write_html(&mut html, &self.blocks).expect("writing to a String cannot fail");
        html + "</main>\n</body>\n</html>\n"
    }
}

fn write_markdown(text: &mut String, blocks: &[Block], figures: &str) -> std::fmt::Result {
    for block in blocks {
        match block {
            Block::Heading(level, heading) => writeln!(text, "{} {}\n", "#".repeat(usize::from(*level)), inline(heading))?,
            Block::Paragraph(spans) => writeln!(text, "{}\n", markdown(spans))?,
            Block::Notice(spans) => writeln!(text, "> {}\n", markdown(spans))?,
            Block::List(items) => {
                for item in items {
                    writeln!(text, "- {}", markdown(item))?;
                }
                writeln!(text)?;
            }
            Block::Table(table) => write_markdown_table(text, table)?,
            Block::Figure { name, figure, caption, numbers } => {
                writeln!(text, "![{}]({figures}{name}.svg)\n\n{}\n", inline(&figure.description), inline(caption))?;
                write_markdown_table(text, numbers)?;
            }
            Block::Code { language, text: lines } => writeln!(text, "{}", fenced(language, lines))?,
            Block::Details(heading, blocks) => {
                writeln!(text, "<details><summary>{}</summary>\n", inline(heading))?;
                write_markdown(text, blocks, figures)?;
                writeln!(text, "</details>\n")?;
            }
        }
    }
    Ok(())
}

fn write_markdown_table(text: &mut String, table: &Table) -> std::fmt::Result {
    if table.rows.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = table.columns.iter().map(|(name, _)| inline(name)).collect();
    let rules: Vec<&str> = table.columns.iter().map(|(_, is_number)| if *is_number { "---:" } else { "---" }).collect();
    if !table.caption.is_empty() {
        writeln!(text, "{}\n", inline(&table.caption))?;
    }
    writeln!(text, "| {} |\n|{}|", names.join(" | "), rules.join("|"))?;
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|cell| markdown(cell)).collect();
        writeln!(text, "| {} |", cells.join(" | "))?;
    }
    writeln!(text)
}

fn markdown(spans: &[Span]) -> String {
    let span = |span: &Span| match span {
        Span::Plain(text) => inline(text),
        Span::Strong(text) if text.trim().is_empty() => String::new(),
        Span::Strong(text) => format!("**{}**", inline(text.trim())),
        // A code span cannot escape a backtick, nor a table cell a bar within one.
        Span::Code(text) if text.contains(['`', '|', '\n', '\r']) => inline(text),
        Span::Code(text) => format!("`{text}`"),
    };
    spans.iter().map(span).collect()
}

fn write_html(html: &mut String, blocks: &[Block]) -> std::fmt::Result {
    for block in blocks {
        match block {
            Block::Heading(level, heading) => writeln!(html, "<h{level}>{}</h{level}>", escape(heading))?,
            Block::Paragraph(spans) => writeln!(html, "<p>{}</p>", html_of(spans))?,
            Block::Notice(spans) => writeln!(html, "<p class=\"notice\" role=\"note\">{}</p>", html_of(spans))?,
            Block::List(items) => {
                writeln!(html, "<ul>")?;
                for item in items {
                    writeln!(html, "<li>{}</li>", html_of(item))?;
                }
                writeln!(html, "</ul>")?;
            }
            Block::Table(table) => write_html_table(html, table)?,
            Block::Figure { figure, caption, numbers, .. } => {
                writeln!(html, "<figure>\n{}<figcaption>{}</figcaption>", figure.to_svg(), escape(caption))?;
                if !numbers.rows.is_empty() {
                    writeln!(html, "<details><summary>As a table</summary>")?;
                    write_html_table(html, numbers)?;
                    writeln!(html, "</details>")?;
                }
                writeln!(html, "</figure>")?;
            }
            Block::Code { text, .. } => {
                let visible = |character: char| character == '\n' || character == '\t' || !character.is_control();
                let text: String = text.trim_end().chars().map(|c| if visible(c) { c } else { '\u{fffd}' }).collect();
                let lines: Vec<String> = text.split('\n').map(escape_line).collect();
                writeln!(html, "<pre><code>{}</code></pre>", lines.join("\n"))?;
            }
            Block::Details(heading, blocks) => {
                writeln!(html, "<details><summary>{}</summary>", escape(heading))?;
                write_html(html, blocks)?;
                writeln!(html, "</details>")?;
            }
        }
    }
    Ok(())
}

/// Escapes a line of code; tabs are kept.
fn escape_line(line: &str) -> String {
    line.split('\t').map(escape).collect::<Vec<_>>().join("\t")
}

fn write_html_table(html: &mut String, table: &Table) -> std::fmt::Result {
    if table.rows.is_empty() {
        return Ok(());
    }
    let class = |is_number: bool| if is_number { " class=\"number\"" } else { "" };
    writeln!(html, "<div class=\"scroll\" tabindex=\"0\">\n<table>")?;
    if !table.caption.is_empty() {
        writeln!(html, "<caption>{}</caption>", escape(&table.caption))?;
    }
    let names: Vec<String> =
        table.columns.iter().map(|(name, is_number)| format!("<th scope=\"col\"{}>{}</th>", class(*is_number), escape(name))).collect();
    writeln!(html, "<thead><tr>{}</tr></thead>\n<tbody>", names.concat())?;
    for row in &table.rows {
        let cell = |(i, (cell, (_, is_number))): (usize, (&Text, &(String, bool)))| match i {
            0 => format!("<th scope=\"row\">{}</th>", html_of(cell)),
            _ => format!("<td{}>{}</td>", class(*is_number), html_of(cell)),
        };
        let cells: String = row.iter().zip(&table.columns).enumerate().map(cell).collect();
        writeln!(html, "<tr>{cells}</tr>")?;
    }
    writeln!(html, "</tbody>\n</table>\n</div>")
}

fn html_of(spans: &[Span]) -> String {
    let span = |span: &Span| match span {
        Span::Plain(text) => escape(text),
        Span::Strong(text) => format!("<strong>{}</strong>", escape(text)),
        Span::Code(text) => format!("<code>{}</code>", escape(text)),
    };
    spans.iter().map(span).collect()
}
