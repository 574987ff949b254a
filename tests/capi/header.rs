//! The header is the one that cbindgen makes of the source.

use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn is_not_stale() {
    let config = std::fs::read_to_string(format!("{ROOT}/cbindgen.toml")).unwrap();
    // the first line ends in it
    let first = config.lines().next().unwrap();
    let wanted = first.split("by cbindgen ").nth(1).unwrap().trim_end_matches('.');
    let version = Command::new("cbindgen").arg("--version").output();
    let version = version.map(|o| String::from_utf8_lossy(&o.stdout).trim().replace("cbindgen ", ""));
    if version.as_deref().ok() != Some(wanted) {
        println!("skipped: there is no cbindgen {wanted} (cargo install cbindgen@{wanted} --locked)");
        assert!(std::env::var_os("TRIMTAB_EXPECT_CBINDGEN").is_none(), "cbindgen {wanted} must be there");
        return;
    }
    let made =
        Command::new("cbindgen").args(["--quiet", "--crate", "trimtab"]).current_dir(ROOT).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let there = std::fs::read_to_string(format!("{ROOT}/include/trimtab.h")).unwrap();
    let hint = "include/trimtab.h is stale: cbindgen --quiet --output include/trimtab.h";
    assert!(there == String::from_utf8(made.stdout).unwrap(), "{hint}");
}
