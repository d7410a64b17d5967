//! Initial values and the numbers of micro-steps, against their formulas.

use moelab::run::config::{Config, load};
use moelab::run::model::parameters::{Init, initial_values};

fn config(text: &str) -> Config {
    load(&|_| Ok(text.to_string()), "test.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// (mean, standard deviation, largest size) of a parameter's initial values.
fn moments(config: &Config, name: &str) -> (f64, f64, f64) {
    let specs = config.parameters();
    let values = initial_values(specs.iter().find(|spec| spec.name == name).unwrap(), config.seed);
    let (n, values) = (values.len() as f64, values.iter().map(|v| f64::from(*v)));
    let mean = values.clone().sum::<f64>() / n;
    let deviation = (values.clone().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    (mean, deviation, values.fold(0.0, |most, v| v.abs().max(most)))
}

#[test]
fn deviations_are_those_of_the_config() {
    let text =
        "[model]\nwidth = 64\ndepth.layers = 8\nffn.width = 64\nattention.heads = 4\ninit = { std = 0.05, residual_scaled = true }\n";
    let config = config(text);
    let residual = 0.05 / 4.0; // sqrt(2 * 8)
    for (name, wanted) in [
        ("embedding.weight", 0.05),
        ("blocks.3.attention.qkv.weight", 0.05),
        ("blocks.3.attention.output.weight", residual),
        ("blocks.3.moe.experts.up.weight", 0.05),
        ("blocks.3.moe.experts.down.weight", residual),
    ] {
        let (mean, found, _) = moments(&config, name);
        assert!((found / wanted - 1.0).abs() < 0.05 && mean.abs() < 0.1 * wanted, "{name}: {found}, wanted {wanted}; mean {mean}");
    }
}

#[test]
fn projections_between_states_are_uniform_to_their_bound() {
    let text = "[model]\nwidth = 64\nffn = { kind = 'dense', width = 64 }\nattention.heads = 4\n\
        depth = { kind = 'recursive', layers = 1, recursion = { injection = 'projected', halting_head = true } }\n";
    let config = config(text);
    let (mean, deviation, largest) = moments(&config, "recursion.high_to_low.weight");
    // 1 / sqrt(64), and the deviation of a uniform between -1/8 and 1/8.
    assert!(largest <= 0.125 && largest > 0.124, "{largest}");
    assert!((deviation / (0.125 / 3f64.sqrt()) - 1.0).abs() < 0.03 && mean.abs() < 0.005, "{deviation} {mean}");
    let halting = config.parameters().into_iter().find(|spec| spec.name == "recursion.halting.bias").unwrap();
    assert_eq!(halting.init, Init::Constant(-5.0));
}

/// States that are carried over the same data: `halt_after` micro-steps see one batch, the first of them with fresh states.
#[test]
fn carried_states_see_a_batch_as_often_as_they_are_carried() {
    let of = |carry: &str| {
        let text = format!(
            "[model]\nwidth = 32\nffn = {{ kind = 'dense', width = 32 }}\nattention.heads = 2\n\
             depth = {{ kind = 'recursive', layers = 1, recursion = {{ carry = '{carry}', halt_after = 3 }} }}\n"
        );
        let config = config(&text);
        let batches: Vec<u64> = (0..8).map(|micro_step| config.batch_of(micro_step)).collect();
        let fresh: Vec<u64> = (0..8).filter(|micro_step| config.states_start_anew(*micro_step)).collect();
        (batches, fresh)
    };
    assert_eq!(of("same_data"), (vec![0, 0, 0, 1, 1, 1, 2, 2], vec![0, 3, 6]));
    assert_eq!(of("next_data").0, [0, 1, 2, 3, 4, 5, 6, 7]);
    let indexed = config("");
    assert_eq!((indexed.batch_of(7), indexed.tokens_per_update()), (7, 49_152));
}
