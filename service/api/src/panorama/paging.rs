//! Lists in pages. A token names the last item of the page before; its letters need no quoting anywhere.

use super::errors::ApiError;

/// Items on a page when nobody says how many: scripts read the first page only.
const DEFAULT_PAGE: usize = 500;

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
            let last = hex::decode(token).map_err(|_| ApiError::field("NextToken", "the token is not one of this service's"))?;
            // The item may have gone since: then there is nothing to go on from.
            items.iter().position(|i| id(i).as_bytes() == last).map_or(items.len(), |p| p + 1)
        }
    };
    let more = items.len() > start + size;
    let page: Vec<T> = items.into_iter().skip(start).take(size).collect();
    let next = if more { page.last().map(|i| hex::encode(id(i))) } else { None };
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_the_list_once() {
        let items: Vec<u32> = (0..7).collect();
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let (page, next) = page(items.clone(), |i| i.to_string(), Some(3), token.as_deref()).unwrap();
            seen.extend(page);
            token = next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, items);
        assert!(page(items.clone(), |i| i.to_string(), None, Some("zz")).is_err());
        assert_eq!(page(items.clone(), |i| i.to_string(), Some(7), None).unwrap().1, None);
        assert_eq!(page(items, |i| i.to_string(), Some(0), None).unwrap().0.len(), 7);
    }
}
