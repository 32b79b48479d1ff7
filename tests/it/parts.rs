//! Reports which parts of the tests are left out: those that need programs of other projects.

use std::fs;
use std::io::{Write, stderr};
use std::path::Path;

#[test]
fn every_part_that_is_left_out_says_what_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_parts/tests");
    // A package from a registry does not contain them.
    let (Ok(alone), Ok(together)) = (fs::read_dir(&folder), fs::read_dir(folder.join("it"))) else { return };
    let paths = alone.chain(together).map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| !path.ends_with("it") && !path.ends_with("main.rs"));
    let paths = paths.map(|path| if path.is_dir() { path.join("mod.rs") } else { path });
    let parts: Vec<_> = paths.map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(!parts.is_empty());
    let charters = parts.iter().map(|part| part.lines().next()?.strip_prefix("//! "));
    let charters: Vec<&str> = charters.map(|charter| charter.expect("a part without a charter")).collect();
    if std::env::var_os("ALL_PARTS").is_none() {
        // `println!` would print nothing, since a test that passes hides its output.
        writeln!(stderr(), "\nleft out, `tests/run` has them too:\n  {}", charters.join("\n  ")).unwrap();
    }
}
