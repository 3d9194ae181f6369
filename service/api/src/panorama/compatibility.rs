//! `docs/api-compatibility.md` is held against the code here, so that it cannot go stale.

use super::operations::OPERATIONS;
use crate::limits::Limits;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../../docs/api-compatibility.md");

/// Rows of the page's tables whose first cell passes.
fn rows(first: impl Fn(&str) -> bool) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    PAGE.lines().filter(|l| l.starts_with('|')).map(cells).filter(|c| first(c.first().unwrap_or(&""))).collect()
}

#[test]
fn the_page_lists_the_operations_of_the_code() {
    let is_operation = |cell: &str| cell.starts_with(|c: char| c.is_ascii_uppercase());
    let mut page = BTreeMap::new();
    for row in rows(is_operation) {
        let [name, request, errors, decisions] = row[..] else { panic!("{row:?}") };
        let known = page.insert(name, (request.trim_matches('`'), errors));
        assert!(known.is_none(), "{name} is there twice");
        assert!(decisions.is_empty() || decisions.ends_with('.'), "{name}: {decisions}");
    }
    let requests: Vec<String> = OPERATIONS.iter().map(|o| format!("{} {}", o.signature.method, o.signature.path)).collect();
    let code: BTreeMap<&str, (&str, &str)> = OPERATIONS
        .iter()
        .zip(&requests)
        .map(|(o, request)| (o.signature.name, (request.as_str(), o.signature.errors)))
        .collect();
    assert_eq!(page, code);
}

#[test]
fn the_page_lists_the_limits_and_their_numbers() {
    let is_limit = |cell: &str| cell.starts_with('`') && cell != "`limits`";
    let mut page = BTreeMap::new();
    for row in rows(is_limit) {
        let name = row[0].trim_start_matches('`').split('`').next().unwrap_or_default();
        page.insert(name.to_owned(), row[1].parse::<u64>().unwrap_or_else(|_| panic!("{row:?}")));
    }
    let code: BTreeMap<String, u64> = serde_json::from_value(serde_json::to_value(Limits::default()).unwrap()).unwrap();
    assert_eq!(page, code);
}
