//! One RTSP session: connect, authenticate, find the H.264 stream, play. TCP interleaved only: it passes every
//! firewall, loses nothing, and retina has no reorder buffer for UDP.

use crate::backlog::Unit;
use crate::machine::Failure;
use belvedere_interfaces::camera::StreamConfiguration;
use futures_util::StreamExt;
use retina::client::{Credentials, PlayOptions, Session, SessionGroup, SessionOptions, SetupOptions, Transport};
use retina::codec::{CodecItem, FrameFormat, ParametersRef};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use url::Url;

/// The guide's text for a camera that does not send H.264.
pub const NOT_H264: &str = "Camera did not provide an H264 encoded stream";

/// What a session brings.
pub enum News {
    /// The size of the pictures from now on.
    Size(u32, u32),
    /// A coded picture.
    Unit(Unit),
}

/// Plays until it ends; says why. What comes is put into `news`.
pub async fn play(configuration: StreamConfiguration, group: Arc<SessionGroup>, news: mpsc::Sender<News>) -> Failure {
    match attempt(configuration, group, news).await {
        Ok(()) => Failure::Other("the camera ended the stream".into()),
        Err(failure) => failure,
    }
}

/// What a retina error means to us. Its first line says what happened; the others name addresses and packets.
fn failure(error: &retina::Error) -> Failure {
    if matches!(error.status_code(), Some(401 | 403)) {
        return Failure::AuthenticationFailed;
    }
    let text = error.to_string();
    // Asked for a password when there is none to give, retina does not report the answer's status.
    if text.starts_with("401 ") || text.starts_with("403 ") {
        return Failure::AuthenticationFailed;
    }
    Failure::Other(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Address and credentials; user name and password inside the URL count when there are no others.
fn address(configuration: &StreamConfiguration) -> Result<(Url, Option<Credentials>), Failure> {
    let invalid = |what: &str| Failure::Other(format!("the stream's URL {what}: it has the form rtsp://host[:port]/path"));
    let mut url = Url::parse(&configuration.url).map_err(|error| invalid(&format!("is not valid ({error})")))?;
    if url.scheme() != "rtsp" {
        return Err(invalid("does not begin with rtsp://"));
    }
    let decoded = |text: &str| {
        url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let inside = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return Err(invalid("names no host"));
    }
    let credentials = match &configuration.username {
        Some(username) => Some((username.clone(), configuration.password.clone().unwrap_or_default())),
        None if !inside.0.is_empty() => Some(inside),
        None => None,
    };
    Ok((url, credentials.map(|(username, password)| Credentials { username, password })))
}

async fn attempt(
    configuration: StreamConfiguration,
    group: Arc<SessionGroup>,
    news: mpsc::Sender<News>,
) -> Result<(), Failure> {
    let (url, credentials) = address(&configuration)?;
    let options = SessionOptions::default().creds(credentials).user_agent("Belvedere".into()).session_group(group);
    let mut session = Session::describe(url, options).await.map_err(|error| failure(&error))?;
    let video: Vec<_> = session.streams().iter().filter(|stream| stream.media() == "video").collect();
    let Some(index) =
        session.streams().iter().position(|stream| stream.media() == "video" && stream.encoding_name() == "h264")
    else {
        let offered = match video.first() {
            Some(stream) => format!("it offers {}", stream.encoding_name().to_uppercase()),
            None => "it offers no video".to_owned(),
        };
        return Err(Failure::Unsupported(format!("{NOT_H264} ({offered})")));
    };
    let setup = SetupOptions::default().transport(Transport::Tcp(Default::default())).frame_format(FrameFormat::SIMPLE);
    session.setup(index, setup).await.map_err(|error| failure(&error))?;
    let playing = session.play(PlayOptions::default()).await.map_err(|error| failure(&error))?;
    let mut media = playing.demuxed().map_err(|error| failure(&error))?;
    let mut size_known = false;
    while let Some(item) = media.next().await {
        let frame = match item.map_err(|error| failure(&error))? {
            CodecItem::VideoFrame(frame) => frame,
            _ => continue,
        };
        if (frame.has_new_parameters() || !size_known)
            && let Some(ParametersRef::Video(parameters)) = media.streams()[frame.stream_id()].parameters()
        {
            let (width, height) = parameters.pixel_dimensions();
            size_known = true;
            let _ = news.send(News::Size(width, height)).await;
        }
        let timestamp_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let unit =
            Unit { key: frame.is_random_access_point(), gap: frame.loss() > 0, timestamp_us, bytes: frame.into_data() };
        if news.send(News::Unit(unit)).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(url: &str, username: Option<&str>, password: Option<&str>) -> StreamConfiguration {
        StreamConfiguration {
            stream_id: "camera".into(),
            url: url.into(),
            username: username.map(Into::into),
            password: password.map(Into::into),
        }
    }

    #[test]
    fn credentials_come_from_the_configuration_or_else_from_the_url() {
        for (url, username, password, expected) in [
            ("rtsp://host/live", None, None, None),
            ("rtsp://host/live", Some("u"), Some("p"), Some(("u", "p"))),
            ("rtsp://host/live", Some("u"), None, Some(("u", ""))),
            ("rtsp://a:b%40+c@host/live", None, None, Some(("a", "b@+c"))),
            ("rtsp://a:b@host/live", Some("u"), Some("p"), Some(("u", "p"))),
        ] {
            let (address, credentials) = address(&configuration(url, username, password)).unwrap();
            assert_eq!(address.as_str(), "rtsp://host/live");
            let credentials = credentials.as_ref().map(|c| (c.username.as_str(), c.password.as_str()));
            assert_eq!(credentials, expected);
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_said_without_repeating_it() {
        for url in ["", "host/live", "http://a:secret@host/", "rtsp:live", "rtsp://a:secret@"] {
            let Err(Failure::Other(text)) = address(&configuration(url, None, None)) else { panic!("{url}") };
            assert!(text.contains("rtsp://host") && !text.contains("secret"), "{text}");
        }
    }
}
