//! What makes two runs the same run: class by class, what differs, what is said, and what follows.

use moelab::config_file::Class;
use moelab::run::Config;
use moelab::run::config::load;
use moelab::run::identity::{Agreement, Identity, Purpose, Refused, rates_already_used};

const BASE: &str = "[model]\nwidth = 32\nattention.heads = 2\n[train]\nupdates = 100\n[optimizer]\nadamw.lr = 0.002\n";

fn config(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load(&|_| Ok(BASE.to_owned()), "run.toml", &sets).unwrap_or_else(|problems| panic!("{problems}"))
}

fn identity(sets: &[&str]) -> Identity {
    Identity::new(&config(sets), "da7a", "70c3", "a GPU", "a driver")
}

fn resume(sets: &[&str], update: u32, allowed: &[Class]) -> Result<Agreement, Refused> {
    identity(&[]).check(&identity(sets), Purpose::Resume { update, allowed })
}

#[test]
fn only_what_differs_from_the_defaults_counts() {
    let settings = identity(&[]).settings.unwrap();
    let keys: Vec<_> = settings.values().flat_map(|keys| keys.keys().map(String::as_str)).collect();
    assert_eq!(keys, ["model.attention.heads", "model.vocabulary", "model.width", "optimizer.adamw.lr", "train.updates"]);
    // A stated default is no difference, and neither is a key that does not apply.
    let stated = ["model.context=512", "train.micro_batches=4", "schedule.kind=cosine"];
    assert_eq!(identity(&stated).class_hashes(), identity(&[]).class_hashes());
    let (base, longer) = (identity(&[]).class_hashes(), identity(&["train.updates=200"]).class_hashes());
    let differ: Vec<Class> = Class::ALL.into_iter().filter(|class| base.get(class) != longer.get(class)).collect();
    assert_eq!(differ, [Class::Length]);
}

#[test]
fn a_key_of_each_class_says_what_follows() {
    let reasons = |sets: &[&str], purpose: Purpose| identity(&[]).check(&identity(sets), purpose).unwrap_err().reasons.join("\n");
    let resumed = Purpose::Resume { update: 7, allowed: &[Class::Optimisation] };
    for purpose in [resumed, Purpose::Evaluate, Purpose::Weights] {
        let text = reasons(&["model.norm.eps=1e-6"], purpose);
        assert!(text.contains("model: `model.norm.eps` is 1e-6, the run was trained with 1.1920929e-7"), "{text}");
    }
    let text = reasons(&["data.batch=12", "seed=3"], resumed);
    assert!(text.contains("data: `data.batch` is 12, the run was trained with 24") && text.contains("`seed` is 3"), "{text}");
    assert!(reasons(&["data.batch=12"], Purpose::Evaluate).contains("--data PATH"));
    let weights = identity(&[]).check(&identity(&["data.batch=12"]), Purpose::Weights);
    assert_eq!(weights, Ok(Agreement::default()));

    let text = resume(&["schedule.min_ratio=0.5"], 7, &[]).unwrap_err().to_string();
    assert!(text.contains("optimisation: `schedule.min_ratio` is 0.5") && text.contains("--allow optimisation"), "{text}");
    let allowed = resume(&["schedule.min_ratio=0.5"], 7, &[Class::Optimisation]).unwrap();
    assert_eq!(allowed.changes[0].to_string(), "optimisation: schedule.min_ratio 0.1 -> 0.5");
    assert_eq!((allowed.changes.len(), allowed.changes[0].update), (1, 7));
    // Before the first update there is nothing that another setting could contradict: an imported model.
    assert_eq!(resume(&["schedule.min_ratio=0.5"], 0, &[]).unwrap().changes.len(), 1);

    let longer = resume(&["train.updates=200", "train.evaluation.windows=3"], 7, &[]).unwrap();
    let changes: Vec<String> = longer.changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["length: train.evaluation.windows 0 -> 3", "length: train.updates 100 -> 200"]);
    assert_eq!(resume(&["train.log_every=9", "sample.prompts=['x']", "train.checkpoint.keep=9"], 7, &[]), Ok(Agreement::default()));
    let read = identity(&[]).check(&identity(&["train.updates=200"]), Purpose::Evaluate).unwrap();
    assert!(read.changes.is_empty() && read.notes.len() == 1, "{read:?}");
}

#[test]
fn data_and_tokenizer_are_held_against_what_they_were() {
    let other_data = Identity { data: "0ddda7a".into(), ..identity(&[]) };
    let text = identity(&[]).check(&other_data, Purpose::Evaluate).unwrap_err().to_string();
    assert!(text.contains("0ddda7a") && text.contains("da7a...") && text.contains("--data PATH"), "{text}");
    let resumed = Purpose::Resume { update: 1, allowed: &[Class::Optimisation] };
    assert!(identity(&[]).check(&other_data, resumed).is_err());
    assert!(identity(&[]).check(&other_data, Purpose::Weights).is_ok());
    let other_tokenizer = Identity { tokenizer: "ffff".into(), ..identity(&[]) };
    for purpose in [resumed, Purpose::Evaluate, Purpose::Weights] {
        assert!(identity(&[]).check(&other_tokenizer, purpose).unwrap_err().to_string().contains("tokenizer.json"));
    }
    let other_adapter = Identity { adapter: "another".into(), ..identity(&[]) };
    assert!(identity(&[]).check(&other_adapter, resumed).unwrap().notes[0].contains("equal bits are no longer guaranteed"));
}

#[test]
fn a_state_without_settings_takes_them_from_an_effective_config_that_nobody_edited() {
    let effective = format!("# written by a test\n# config sha256 ...\n\n{}", config(&[]).to_effective_toml());
    let old = Identity { settings: None, ..identity(&[]) };
    assert_eq!(old.completed(&effective), Ok(identity(&[])));
    let edited = effective.replace("lr = 0.002", "lr = 0.02");
    assert_ne!(edited, effective);
    let text = old.completed(&edited).unwrap_err().to_string();
    assert!(text.contains("was edited") && text.contains(&old.config), "{text}");
    // With settings of its own a state needs no such file.
    assert_eq!(identity(&[]).completed(""), Ok(identity(&[])));
}

#[test]
fn a_longer_run_says_what_it_does_to_its_schedules() {
    let effect = |sets: &[&str], more: u32, update: u32| {
        let longer = format!("train.updates={more}");
        let [before, now] = [sets.to_vec(), [sets, &[longer.as_str()]].concat()].map(|sets| config(&sets));
        let [before, now_identity] = [&before, &now].map(|config| Identity::new(config, "", "", "", ""));
        let agreement = before.check(&now_identity, Purpose::Resume { update, allowed: &[] }).unwrap();
        rates_already_used(&now, &agreement.changes, update)
    };
    // Cosine over the run, warm-up in percent of it: update 2 is the first to differ, and the factor at update 51 moves.
    let text = effect(&[], 200, 50).unwrap();
    assert!(text.contains("with 200 updates, update 2 and later ones"), "{text}");
    let (before, now) = (config(&[]).learning_rates().at_update(50), config(&["train.updates=200"]).learning_rates().at_update(50));
    assert!(text.contains(&format!("{now:.3}")) && text.contains(&format!("{before:.3}")), "{text}");
    // Counts, or nothing that was made yet.
    assert_eq!(effect(&["schedule.horizon=100", "schedule.warmup=5"], 200, 50), None);
    assert_eq!(effect(&["schedule.kind=constant", "schedule.warmup=0"], 200, 50), None);
    assert_eq!(effect(&[], 200, 0), None);
}
