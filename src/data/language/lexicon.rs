//! The words of the language: pronounceable stems of two or three syllables, each domain with its own sounds.
//!
//! The whole lexicon is prefix-free. So wherever the grammar has a choice of words, the bytes alone determine where a word
//! ends, and scoring needs no search over segmentations.

use super::draws::{Draws, Purpose};
use crate::run::config::LanguageOptions;

const ONSETS: [&str; 20] = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kl", "st", "tr"];
const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];
const CODAS: [&str; 6] = ["l", "m", "n", "r", "s", "t"];
/// Plural endings of nouns, by domain.
const PLURALS: [&str; 4] = ["i", "en", "ur", "as"];
/// Endings of verbs by domain: after a singular and after a plural subject.
const AGREEMENTS: [[&str; 2]; 4] = [["a", "on"], ["et", "u"], ["is", "am"], ["or", "e"]];

/// All words, stems without endings.
pub(super) struct Lexicon {
    /// Names of heroes, capitalised.
    pub names: Vec<String>,
    /// For a singular and for a plural noun.
    pub determiners: [String; 2],
    /// Opens a question.
    pub question: String,
    /// Prepositions.
    pub prepositions: Vec<String>,
    /// The words of each domain.
    pub domains: Vec<DomainWords>,
}

/// The content words of one domain, the most frequent first.
pub(super) struct DomainWords {
    /// Stems of nouns: the singular.
    pub nouns: Vec<String>,
    /// Adjectives, invariant.
    pub adjectives: Vec<String>,
    /// Stems of verbs without an object.
    pub intransitive: Vec<String>,
    /// Stems of verbs with an object.
    pub transitive: Vec<String>,
    /// Ending of plural nouns.
    pub plural: &'static str,
    /// Endings of verbs: singular, plural.
    pub agreement: [&'static str; 2],
}

impl Lexicon {
    /// Generates all words. Domains share `options.shared` of each class of content words, with different frequencies.
    pub fn draw(options: &LanguageOptions) -> Self {
        let mut smith = Smith { draws: Draws::new(options.seed, 0, Purpose::Lexicon), taken: Vec::new() };
        let common = Sound { onsets: ONSETS.to_vec(), vowels: VOWELS.to_vec(), syllables: 2 };
        let particle = Sound { syllables: 1, ..common.clone() };
        let determiners = [(); 2].map(|()| smith.word(&particle));
        let question = smith.word(&particle);
        let prepositions = smith.words(&particle, 3);
        let names = smith.words(&common, options.names).iter().map(|name| capitalised(name)).collect();
        let classes = [options.nouns, options.adjectives, options.verbs, options.verbs];
        let shared = classes.map(|count| smith.words(&common, (f64::from(count) * options.shared).round() as u32));
        let domains = (0..options.domains as usize).map(|domain| {
            let sound = smith.sound();
            let mut class = 0;
            let [nouns, adjectives, intransitive, transitive] = shared.clone().map(|mut words| {
                words.extend(smith.words(&sound, classes[class] - words.len() as u32));
                smith.draws.shuffle(&mut words);
                class += 1;
                words
            });
            let plural = PLURALS[domain % PLURALS.len()];
            let agreement = AGREEMENTS[(domain + domain / PLURALS.len()) % AGREEMENTS.len()];
            DomainWords { nouns, adjectives, intransitive, transitive, plural, agreement }
        });
        let domains = domains.collect();
        Self { names, determiners, question, prepositions, domains }
    }
}

/// The syllables of which words consist.
#[derive(Clone)]
struct Sound {
    onsets: Vec<&'static str>,
    vowels: Vec<&'static str>,
    syllables: usize,
}

/// Generates words and records them.
struct Smith {
    draws: Draws,
    taken: Vec<String>,
}

impl Smith {
    /// The sounds of one domain: a subset of onsets and vowels.
    fn sound(&mut self) -> Sound {
        let [mut onsets, mut vowels] = [ONSETS.to_vec(), VOWELS.to_vec()];
        self.draws.shuffle(&mut onsets);
        self.draws.shuffle(&mut vowels);
        onsets.truncate(8);
        vowels.truncate(3);
        Sound { onsets, vowels, syllables: 2 }
    }

    fn words(&mut self, sound: &Sound, count: u32) -> Vec<String> {
        (0..count).map(|_| self.word(sound)).collect()
    }

    /// A word that keeps the lexicon prefix-free. Every 20 failures add a syllable, so one is always found.
    fn word(&mut self, sound: &Sound) -> String {
        for attempt in 0.. {
            let mut word = String::new();
            for _ in 0..sound.syllables + attempt / 20 {
                word += sound.onsets[self.draws.below(sound.onsets.len())];
                word += sound.vowels[self.draws.below(sound.vowels.len())];
            }
            if sound.syllables == 1 || self.draws.below(2) == 0 {
                word += CODAS[self.draws.below(CODAS.len())];
            }
            let free = |other: &String| !other.starts_with(&word) && !word.starts_with(other.as_str());
            if self.taken.iter().all(free) {
                self.taken.push(word.clone());
                return word;
            }
        }
        unreachable!("there are always longer words")
    }
}

/// With an upper-case first letter.
pub(super) fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1); // ASCII
    first.to_uppercase() + rest
}
