//! Gives the core the version of the Python package that it is built with, and macOS's linker its flags for modules.

use std::{env, fs};

const VERSION: &str = "../src/threepipe/_version.py";

fn main() {
    println!("cargo::rerun-if-changed={VERSION}");
    let text = fs::read_to_string(VERSION).expect("the core is built in a checkout or source archive of threepipe");
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = \""))
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("a line __version__ = \"...\"");
    println!("cargo::rustc-env=THREEPIPE_VERSION={version}");
    // As pyo3-build-config does; Linux and Windows need none.
    if env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple") {
        println!("cargo::rustc-cdylib-link-arg=-undefined");
        println!("cargo::rustc-cdylib-link-arg=dynamic_lookup");
    }
}
