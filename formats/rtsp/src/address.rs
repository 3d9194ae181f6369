//! Where requests go: the camera's URL, its control addresses, its redirects.
//!
//! All requests of a session go over one connection, whatever host a control address names: cameras behind a router name
//! the address that they know. So no address of the camera's can send a password elsewhere, but a redirect.

use crate::description::MAXIMUM_CONTROL;
use url::Url;

/// The port when the URL names none.
pub const PORT: u16 = 554;

/// A request's address on the wire: without user name and password, without what would end the line.
pub fn request_address(url: &Url) -> String {
    let mut url = url.clone();
    // They cannot be set where there is no host; then there are none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    clean(url.as_str())
}

/// Printable ASCII as it is, everything else percent-encoded.
fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for byte in text.trim().bytes() {
        match byte {
            b'!'..=b'~' => clean.push(char::from(byte)),
            other => clean.push_str(&format!("%{other:02X}")),
        }
    }
    clean
}

fn absolute(text: &str) -> bool {
    text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("rtsp://"))
}

/// The session's own address: `Content-Base` or `Content-Location` where they can be used, else what was asked for.
pub fn base(asked: &str, content_base: Option<&str>, content_location: Option<&str>) -> String {
    let usable = |text: &&str| absolute(text.trim()) && text.len() <= MAXIMUM_CONTROL;
    content_base.filter(usable).or(content_location.filter(usable)).map_or_else(|| asked.to_owned(), clean)
}

/// The address of a control attribute, the likeliest first. Clients disagree about relative ones: most append them to
/// the base, whatever it ends with (a query too), a few resolve them as RFC 3986 says; cameras follow either.
pub fn control(base: &str, control: Option<&str>) -> Vec<String> {
    let control = clean(control.unwrap_or(""));
    if control.is_empty() || control == "*" {
        return vec![base.to_owned()];
    }
    if absolute(&control) {
        return vec![control];
    }
    let slash = if base.ends_with('/') { "" } else { "/" };
    let mut candidates = vec![format!("{base}{slash}{control}")];
    let mut add = |candidate: String| {
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    };
    let resolved = Url::parse(base).ok().and_then(|base| base.join(&control).ok()).filter(|url| url.scheme() == "rtsp");
    if let Some(resolved) = resolved {
        add(clean(resolved.as_str()));
    }
    // Before the query.
    if let Some((path, query)) = base.split_once('?') {
        add(format!("{}/{control}?{query}", path.trim_end_matches('/')));
    }
    candidates
}

/// Where a redirect leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// The same host: the password may be said there.
    SameHost(Url),
    /// Another one: it may not.
    OtherHost(Url),
    /// Not to a place where we can go; for people.
    Nowhere(String),
}

/// Resolves the header `Location`.
pub fn redirect(from: &Url, location: &str) -> Redirect {
    let shown = |text: &str| clean(text).chars().take(200).collect::<String>();
    let Ok(mut to) = from.join(location.trim()) else { return Redirect::Nowhere(shown(location)) };
    let _ = to.set_username("");
    let _ = to.set_password(None);
    if to.scheme() != "rtsp" || to.host_str().is_none_or(str::is_empty) || to.as_str().len() > MAXIMUM_CONTROL {
        return Redirect::Nowhere(shown(to.as_str()));
    }
    let host = |url: &Url| url.host_str().map(str::to_ascii_lowercase);
    if host(from) == host(&to) { Redirect::SameHost(to) } else { Redirect::OtherHost(to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_addresses_as_cameras_write_them() {
        for (base, given, first) in [
            ("rtsp://h/live/", Some("track1"), "rtsp://h/live/track1"),
            ("rtsp://h/live", Some("track1"), "rtsp://h/live/track1"),
            ("rtsp://h/live", Some("rtsp://10.0.0.1/live/track1"), "rtsp://10.0.0.1/live/track1"),
            ("rtsp://h/live", Some("*"), "rtsp://h/live"),
            ("rtsp://h/live", None, "rtsp://h/live"),
            ("rtsp://h/cam?channel=1&subtype=0", Some("trackID=0"), "rtsp://h/cam?channel=1&subtype=0/trackID=0"),
            ("rtsp://h/live/", Some("?ctype=video"), "rtsp://h/live/?ctype=video"),
            ("rtsp://h/live/", Some(" track 1\r\nX: y "), "rtsp://h/live/track%201%0D%0AX:%20y"),
        ] {
            assert_eq!(control(base, given)[0], first, "{given:?}");
        }
        assert_eq!(
            control("rtsp://h/cam?c=1", Some("track1")),
            ["rtsp://h/cam?c=1/track1", "rtsp://h/track1", "rtsp://h/cam/track1?c=1"]
        );
        assert_eq!(control("rtsp://h/a/b", Some("/x")), ["rtsp://h/a/b//x", "rtsp://h/x"]);
    }

    #[test]
    fn the_base_is_what_can_be_used() {
        let asked = "rtsp://h/live";
        assert_eq!(base(asked, Some("rtsp://h/live/ "), None), "rtsp://h/live/");
        assert_eq!(base(asked, Some("RTSP://h/x"), Some("rtsp://h/y")), "RTSP://h/x");
        assert_eq!(base(asked, Some("/live/"), Some("rtsp://h/y/")), "rtsp://h/y/");
        for unusable in ["*", "", "/live/", "live", "http://h/", &format!("rtsp://h/{}", "x".repeat(MAXIMUM_CONTROL))] {
            assert_eq!(base(asked, Some(unusable), None), asked);
        }
    }

    #[test]
    fn redirects_know_whether_it_is_the_same_host() {
        let from = Url::parse("rtsp://Camera.local:8554/live").unwrap();
        let url = |text: &str| Url::parse(text).unwrap();
        for (location, expected) in [
            ("rtsp://camera.local:8554/moved", Redirect::SameHost(url("rtsp://camera.local:8554/moved"))),
            ("rtsp://CAMERA.LOCAL/moved", Redirect::SameHost(url("rtsp://CAMERA.LOCAL/moved"))),
            ("/moved?x=1", Redirect::SameHost(url("rtsp://Camera.local:8554/moved?x=1"))),
            ("moved", Redirect::SameHost(url("rtsp://Camera.local:8554/moved"))),
            ("rtsp://u:p@other/moved", Redirect::OtherHost(url("rtsp://other/moved"))),
            ("rtsp://camera.local.evil/", Redirect::OtherHost(url("rtsp://camera.local.evil/"))),
            ("rtsp://camera.local@evil/", Redirect::OtherHost(url("rtsp://evil/"))),
            ("rtsps://camera.local/x", Redirect::Nowhere("rtsps://camera.local/x".into())),
            ("http://u:p@camera.local/", Redirect::Nowhere("http://camera.local/".into())),
            ("rtsp:///x", Redirect::Nowhere("rtsp:///x".into())),
        ] {
            assert_eq!(redirect(&from, location), expected, "{location}");
        }
    }
}
