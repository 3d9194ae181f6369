//! Lists in pages.
//!
//! A token names where the page before ended: its position, and the items at its end by a short hash each. What is
//! deleted between two pages therefore costs nothing: the next page begins after the last item that is still there, and
//! where none is left (scripts that delete page after page) where the page before began. A token's letters need no
//! quoting anywhere.

use super::errors::ApiError;
use crate::sigv4::canonical::sha256;

/// Items on a page when nobody says how many: scripts read the first page only.
const DEFAULT_PAGE: usize = 500;
/// Items that a token remembers: the largest page that can be asked for.
const REMEMBERED: usize = 25;
/// Letters of a position, and of an item's hash.
const LETTERS: usize = 8;

fn hash(id: &str) -> String {
    sha256(id.as_bytes()).chars().take(LETTERS).collect()
}

/// Where the next page begins; `None` if the token is not one of ours.
fn start(ids: &[String], token: &str) -> Option<usize> {
    let word = |index: usize| token.get(index * LETTERS..(index + 1) * LETTERS);
    let count = token.len() / LETTERS;
    let lower = token.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !lower || !token.len().is_multiple_of(LETTERS) || !(2..=REMEMBERED + 1).contains(&count) {
        return None;
    }
    let position = u32::from_str_radix(word(0)?, 16).ok()? as usize;
    let remembered: Vec<&str> = (1..count).filter_map(word).collect();
    let last = ids.iter().rposition(|id| remembered.contains(&id.as_str()));
    Some(last.map_or_else(|| position.saturating_sub(remembered.len()), |p| p + 1).min(ids.len()))
}

/// One page and the token of the next. `id` is what makes an item unique in the list.
pub fn page<T>(
    items: Vec<T>,
    id: impl Fn(&T) -> String,
    max_results: Option<usize>,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let size = max_results.filter(|n| *n > 0).unwrap_or(DEFAULT_PAGE);
    let start = match token {
        None => 0,
        Some(token) => {
            let ids: Vec<String> = items.iter().map(|i| hash(&id(i))).collect();
            start(&ids, token).ok_or_else(|| ApiError::field("NextToken", "the token is not one of this service's"))?
        }
    };
    let more = items.len() > start + size;
    let page: Vec<T> = items.into_iter().skip(start).take(size).collect();
    let next = more.then(|| {
        let end = page.iter().skip(page.len().saturating_sub(REMEMBERED));
        let hashes: String = end.map(|i| hash(&id(i))).collect();
        format!("{:08x}{hashes}", start + page.len())
    });
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(list: &mut Vec<u32>, size: usize, mut between: impl FnMut(&mut Vec<u32>, &[u32])) -> Vec<u32> {
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let (page, next) = page(list.clone(), |i| i.to_string(), Some(size), token.as_deref()).unwrap();
            between(list, &page);
            seen.extend(page);
            token = next;
            match &token {
                None => return seen,
                Some(token) => assert!(token.len() <= 4096 && token.bytes().all(|b| b.is_ascii_alphanumeric())),
            }
        }
    }

    #[test]
    fn pages_cover_the_list_once() {
        for size in [1, 3, 7, 25] {
            let mut list: Vec<u32> = (0..70).collect();
            assert_eq!(pages(&mut list, size, |_, _| {}), (0..70).collect::<Vec<_>>());
        }
        let items: Vec<u32> = (0..7).collect();
        assert_eq!(page(items.clone(), |i| i.to_string(), Some(7), None).unwrap().1, None);
        assert_eq!(page(items, |i| i.to_string(), Some(0), None).unwrap().0.len(), 7);
    }

    #[test]
    fn what_is_deleted_or_made_between_pages_hides_nothing() {
        let all: Vec<u32> = (0..70).collect();
        for size in [1, 4, 25] {
            let delete_page = |list: &mut Vec<u32>, page: &[u32]| list.retain(|i| !page.contains(i));
            assert_eq!(pages(&mut all.clone(), size, delete_page), all);
            let delete_last = |list: &mut Vec<u32>, page: &[u32]| list.retain(|i| Some(i) != page.last());
            assert_eq!(pages(&mut all.clone(), size, delete_last), all);
            let mut new = 1000;
            let add_newest = |list: &mut Vec<u32>, _: &[u32]| {
                new += 1;
                list.insert(0, new);
            };
            assert_eq!(pages(&mut all.clone(), size, add_newest), all);
        }
    }

    #[test]
    fn foreign_tokens_are_refused() {
        let whole = "0".repeat(LETTERS * (REMEMBERED + 2));
        for wrong in ["", "zz", "00000001", "0000000g11111111", "0000000111111111f", "é000000111111111", whole.as_str()] {
            assert!(page(vec![1], |i: &i32| i.to_string(), None, Some(wrong)).is_err(), "{wrong}");
        }
        // The end of a list that became shorter.
        assert_eq!(page(vec![1], |i: &i32| i.to_string(), None, Some("0000ffff11111111")).unwrap(), (vec![], None));
    }
}
