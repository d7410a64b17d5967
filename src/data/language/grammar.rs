//! The grammar of one domain, compiled to a deterministic automaton over words.
//!
//! A domain has sentence templates, each a list of slots with a probability; their trie is the automaton. The choices of a
//! state are prefix-free (see [`super::lexicon`]), so the bytes of a text determine the path,
//! and the probability of a text given its domain is the product of the choices on that path.

use super::draws::Draws;
use super::lexicon::{DomainWords, Lexicon, capitalised};

/// Ends every document. No text contains it.
pub(super) const END: u8 = 0;

const START: usize = 0;
const SINGULAR: usize = 0;
const PLURAL: usize = 1;
const NUMBERS: [(usize, f64); 2] = [(SINGULAR, 0.6), (PLURAL, 0.4)];
const QUESTIONS: f64 = 0.15;

/// A slot of a template.
#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Name,
    Determiner(usize),
    Adjective,
    Noun(usize),
    Intransitive(usize),
    Transitive(usize),
    Preposition,
    Question,
}

/// One kind of sentence.
struct Template {
    probability: f64,
    slots: Vec<Slot>,
    end: &'static str,
}

/// A phrase and its probability.
type Phrase = (f64, Vec<Slot>);

/// A transition from a state.
struct Choice {
    text: String,
    probability: f64,
    next: usize,
    /// The index of the name, if it is one.
    name: Option<usize>,
}

/// The automaton: choices by state, sorted by text.
pub(super) struct Grammar {
    states: Vec<Vec<Choice>>,
    names: f64,
}

/// A position in the automaton.
#[derive(Clone)]
pub(super) struct Cursor {
    state: usize,
    /// The name of this document's hero, once it has been mentioned.
    hero: Option<usize>,
    /// The bytes of the current choice seen so far, the choices that match them, and their weight.
    depth: usize,
    open: std::ops::Range<usize>,
    weight: f64,
}

impl Grammar {
    /// Compiles domain `domain` of the lexicon; a document ends after each sentence with probability `stop`.
    pub fn new(lexicon: &Lexicon, domain: usize, stop: f64) -> Self {
        let mut grammar = Self { states: vec![Vec::new(), Vec::new()], names: lexicon.names.len() as f64 };
        let templates = templates(domain % 2 == 1, domain / 2 % 2 == 1);
        let closing = 1;
        let plain = |text: &str, probability, next| Choice { text: text.into(), probability, next, name: None };
        grammar.states[closing] = vec![plain("\0", stop, START), plain(" ", 1.0 - stop, START)];
        let all: Vec<&Template> = templates.iter().collect();
        let words = (lexicon, &lexicon.domains[domain]);
        grammar.fill(START, &all, 0, words, closing);
        grammar
    }

    /// Fills `state`, whose next word is slot `place` of one of `templates`.
    fn fill(&mut self, state: usize, templates: &[&Template], place: usize, words: (&Lexicon, &DomainWords), closing: usize) {
        let total: f64 = templates.iter().map(|t| t.probability).sum();
        let mut slots: Vec<Slot> = Vec::new();
        for template in templates {
            if !slots.contains(&template.slots[place]) {
                slots.push(template.slots[place]);
            }
        }
        let mut choices = Vec::new();
        for slot in slots {
            let chosen: Vec<&Template> = templates.iter().copied().filter(|t| t.slots[place] == slot).collect();
            let probability = chosen.iter().map(|t| t.probability).sum::<f64>() / total;
            let next = self.after(&chosen, place + 1, words, closing);
            for (rank, (text, share)) in spell(slot, words.0, words.1).into_iter().enumerate() {
                let text = if place == 0 { capitalised(&text) } else { text };
                let name = (slot == Slot::Name).then_some(rank);
                choices.push(Choice { text, probability: probability * share, next, name });
            }
        }
        choices.sort_by(|a, b| a.text.cmp(&b.text));
        self.states[state] = choices;
    }

    /// Adds the state between two words of `templates`, the second in slot `place`: a space, or the end of the sentence.
    fn after(&mut self, templates: &[&Template], place: usize, words: (&Lexicon, &DomainWords), closing: usize) -> usize {
        let total: f64 = templates.iter().map(|t| t.probability).sum();
        let (ended, open): (Vec<&Template>, Vec<&Template>) = templates.iter().partition(|t| t.slots.len() == place);
        let mut choices = Vec::new();
        for end in [".", "?"] {
            let probability = ended.iter().filter(|t| t.end == end).map(|t| t.probability).sum::<f64>() / total;
            if probability > 0.0 {
                choices.push(Choice { text: end.into(), probability, next: closing, name: None });
            }
        }
        let state = self.states.len();
        self.states.push(Vec::new());
        if !open.is_empty() {
            let probability = open.iter().map(|t| t.probability).sum::<f64>() / total;
            let next = self.states.len();
            self.states.push(Vec::new());
            choices.insert(0, Choice { text: " ".into(), probability, next, name: None });
            self.fill(next, &open, place, words, closing);
        }
        self.states[state] = choices;
        state
    }

    /// The probability of `choice` once the hero is known: other names no longer occur.
    fn weight(&self, choice: &Choice, hero: Option<usize>) -> f64 {
        match (choice.name, hero) {
            (Some(name), Some(hero)) if name == hero => choice.probability * self.names,
            (Some(_), Some(_)) => 0.0,
            _ => choice.probability,
        }
    }

    /// At the start of a document.
    pub fn start(&self) -> Cursor {
        self.enter(START, None)
    }

    fn enter(&self, state: usize, hero: Option<usize>) -> Cursor {
        let weight = self.states[state].iter().map(|choice| self.weight(choice, hero)).sum();
        Cursor { state, hero, depth: 0, open: 0..self.states[state].len(), weight }
    }

    fn follow(&self, hero: Option<usize>, choice: &Choice) -> Cursor {
        self.enter(choice.next, if choice.text == "\0" { None } else { choice.name.or(hero) })
    }

    /// Reads one byte and returns its probability given what was read before. After [`END`] a new document starts.
    pub fn read(&self, cursor: &mut Cursor, byte: u8) -> f64 {
        let choices = &self.states[cursor.state];
        let at = |i: &usize| choices[*i].text.as_bytes()[cursor.depth];
        let first = cursor.open.clone().find(|i| at(i) == byte).unwrap_or(cursor.open.end);
        let last = cursor.open.clone().rfind(|i| at(i) == byte).map_or(first, |i| i + 1);
        let weight: f64 = choices[first..last].iter().map(|choice| self.weight(choice, cursor.hero)).sum();
        let probability = if weight > 0.0 { weight / cursor.weight } else { 0.0 };
        let ends = choices[first..last].iter().find(|choice| choice.text.len() == cursor.depth + 1);
        *cursor = match ends {
            Some(choice) if probability > 0.0 => self.follow(cursor.hero, choice),
            _ => Cursor { open: first..last, depth: cursor.depth + 1, weight, ..cursor.clone() },
        };
        if probability == 0.0 {
            cursor.open = 0..0;
        }
        probability
    }

    /// Generates a document, without its [`END`].
    pub fn draw(&self, draws: &mut Draws) -> String {
        let mut text = String::new();
        let mut cursor = self.start();
        loop {
            let mut left = draws.uniform() * cursor.weight;
            let choices = &self.states[cursor.state];
            let possible = choices.iter().filter(|choice| self.weight(choice, cursor.hero) > 0.0);
            let (mut chosen, mut found) = (None, false);
            for choice in possible {
                // Rounding may leave a remainder after the last choice, which then takes it.
                if !found {
                    chosen = Some(choice);
                    left -= self.weight(choice, cursor.hero);
                    found = left < 0.0;
                }
            }
            let choice = chosen.expect("a reachable state has a choice");
            if choice.text == "\0" {
                return text;
            }
            text += &choice.text;
            cursor = self.follow(cursor.hero, choice);
        }
    }
}

/// The words that can fill a slot, each with its probability; content words decay as 1 / (rank + 1), ranks from 1.
fn spell(slot: Slot, lexicon: &Lexicon, domain: &DomainWords) -> Vec<(String, f64)> {
    let zipf = |words: &[String], ending: &str| {
        let total: f64 = (0..words.len()).map(|rank| 1.0 / (rank as f64 + 2.0)).sum();
        let share = |rank: usize| 1.0 / (rank as f64 + 2.0) / total;
        words.iter().enumerate().map(|(rank, word)| (format!("{word}{ending}"), share(rank))).collect()
    };
    let uniform = |words: &[String]| words.iter().map(|word| (word.clone(), 1.0 / words.len() as f64)).collect();
    match slot {
        Slot::Name => uniform(&lexicon.names),
        Slot::Determiner(number) => vec![(lexicon.determiners[number].clone(), 1.0)],
        Slot::Adjective => zipf(&domain.adjectives, ""),
        Slot::Noun(number) => zipf(&domain.nouns, ["", domain.plural][number]),
        Slot::Intransitive(number) => zipf(&domain.intransitive, domain.agreement[number]),
        Slot::Transitive(number) => zipf(&domain.transitive, domain.agreement[number]),
        Slot::Preposition => uniform(&lexicon.prepositions),
        Slot::Question => vec![(lexicon.question.clone(), 1.0)],
    }
}

/// The sentences of a domain. `adjective_last`: adjectives follow their noun; `verb_last`: verbs follow object and place.
fn templates(adjective_last: bool, verb_last: bool) -> Vec<Template> {
    let mut templates = Vec::new();
    for (subject_probability, number, subject) in subjects(adjective_last) {
        for (probability, verb, rest) in predicates(number, subject == [Slot::Name]) {
            let statement: Vec<Slot> = match verb_last {
                false => [&subject[..], &[verb], &rest].concat(),
                true => [&subject[..], &rest, &[verb]].concat(),
            };
            let question = [&[Slot::Question], &statement[..]].concat();
            let probability = subject_probability * probability;
            templates.push(Template { probability: probability * (1.0 - QUESTIONS), slots: statement, end: "." });
            templates.push(Template { probability: probability * QUESTIONS, slots: question, end: "?" });
        }
    }
    templates
}

/// Probability, number, slots.
fn subjects(adjective_last: bool) -> Vec<(f64, usize, Vec<Slot>)> {
    let mut subjects = vec![(0.3, SINGULAR, vec![Slot::Name])];
    for (number, share) in NUMBERS {
        let [determiner, noun] = [Slot::Determiner(number), Slot::Noun(number)];
        subjects.push((0.4 * share, number, vec![determiner, noun]));
        let described = if adjective_last { [noun, Slot::Adjective] } else { [Slot::Adjective, noun] };
        subjects.push((0.3 * share, number, [&[determiner][..], &described].concat()));
    }
    subjects
}

/// Probability, verb and its complements, for a subject of `number`. The subject is never also the object.
fn predicates(number: usize, subject_is_hero: bool) -> Vec<(f64, Slot, Vec<Slot>)> {
    let things = NUMBERS.map(|(number, share)| (share, vec![Slot::Determiner(number), Slot::Noun(number)]));
    let places = things.clone().map(|(share, thing)| (share, [&[Slot::Preposition], &thing[..]].concat()));
    let hero: Phrase = (1.0, vec![Slot::Name]);
    let hero_share = if subject_is_hero { 0.0 } else { 0.3 };
    let [intransitive, transitive] = [Slot::Intransitive(number), Slot::Transitive(number)];
    let mut predicates = vec![(0.3, intransitive, Vec::new())];
    let mut add = |probability: f64, verb, (share, rest): Phrase| predicates.push((probability * share, verb, rest));
    things.into_iter().for_each(|thing| add(0.45 * (1.0 - hero_share), transitive, thing));
    places.into_iter().for_each(|place| add(0.25, intransitive, place));
    if hero_share > 0.0 {
        add(0.45 * hero_share, transitive, hero);
    }
    predicates
}
