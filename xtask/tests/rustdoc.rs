//! What cargo hands to rustdoc for examples becomes what documents a crate.

use xtask::rustdoc::of_documentation;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(String::from).collect()
}

#[test]
fn a_crate_is_documented_with_the_arguments_of_its_examples() {
    let tested =
        words("--edition=2024 --crate-name moelab --test src/lib.rs --test-run-directory . --extern wgpu=libwgpu.rlib --test-args --quiet");
    let expected = words("--edition=2024 --crate-name moelab src/lib.rs --extern wgpu=libwgpu.rlib --out-dir target/doc -D warnings");
    assert_eq!(of_documentation("moelab", &tested), Some(expected));
    assert_eq!(of_documentation("xtask", &tested), None);
    assert_eq!(of_documentation("moelab", &words("-vV")), Some(words("-vV")));
}
