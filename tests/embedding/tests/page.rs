//! `docs/embedding.md` shows these programs.

use std::fs;
use std::path::Path;

#[test]
fn the_page_shows_the_programs_that_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/embedding.md")).unwrap();
    let blocks = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut shown: Vec<String> = blocks.map(str::to_owned).collect();
    let files = fs::read_dir(root.join("src/bin")).unwrap().map(|file| file.unwrap().path());
    let mut programs: Vec<String> = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    shown.sort();
    programs.sort();
    assert_eq!(shown, programs);
}
