//! `docs/tables.md` has every row that the code and the documents name, and each row has a test.

use alloc::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the files under this folder of the package that have one of these extensions.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if endings
                .iter()
                .any(|&ending| path.extension().is_some_and(|own| own == ending))
            {
                found.push(path);
            }
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("text")
}

/// Returns the words of a text that have the form of an id: the letter of a table, then one or two digits.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '+'))
        .filter(|word| {
            let (letter, number) = word.split_at_checked(1).unwrap_or_default();
            "ABCDRULTSVPM".contains(letter)
                && !letter.is_empty()
                && (1..=2).contains(&number.len())
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// Returns the ids of all rows of the tables.
fn rows() -> BTreeSet<String> {
    let tables = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tables.md"));
    let anchors = tables
        .lines()
        .filter_map(|line| line.strip_prefix("| <a id=\""));
    let rows: BTreeSet<String> = anchors
        .map(|rest| {
            let (anchor, rest) = rest.split_once("\"></a>").expect("an anchor");
            let (id, _) = rest.split_once(" |").expect("an id");
            assert_eq!(anchor, id.to_lowercase());
            id.to_owned()
        })
        .collect();
    assert!(rows.len() > 100, "{}", rows.len());
    rows
}

#[test]
fn every_id_that_is_spoken_of_has_its_row() {
    let rows = rows();
    let code = ["src", "tests", "benches", "examples"].map(|folder| files(folder, &["rs"]));
    for path in code.concat() {
        for line in read(&path).lines() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            for id in ids(comment) {
                assert!(rows.contains(id), "{id} in {}: {line}", path.display());
            }
        }
    }
    for path in files("docs", &["md"]) {
        for id in ids(&read(&path)) {
            assert!(rows.contains(id), "{id} in {}", path.display());
        }
    }
}

#[test]
fn every_link_to_a_row_leads_to_the_row_that_it_names() {
    let rows = rows();
    let mut links = 0;
    for path in files("src", &["rs"]) {
        let text = read(&path);
        for (start, rest) in text
            .split("](crate::tables#")
            .zip(text.split("](crate::tables#").skip(1))
        {
            let (_, id) = start.rsplit_once('[').expect("the text of a link");
            let (anchor, _) = rest.split_once(')').expect("the end of a link");
            assert_eq!(id.to_lowercase(), anchor, "in {}", path.display());
            assert!(rows.contains(id), "{id} in {}", path.display());
            links += 1;
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn every_row_has_its_test() {
    let tests: String = files("tests", &["rs", "json"])
        .iter()
        .map(|path| read(path))
        .collect();
    let cited: BTreeSet<&str> = ids(&tests).collect();
    let lacks = |id: &&String| {
        let name = format!("fn {}_", id.to_lowercase());
        let among = format!("_{}_", id.to_lowercase());
        !cited.contains(id.as_str()) && !tests.contains(&name) && !tests.contains(&among)
    };
    let rows = rows();
    let untested: Vec<&String> = rows.iter().filter(lacks).collect();
    assert!(untested.is_empty(), "{untested:?}");
}
