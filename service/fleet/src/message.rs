//! A message between its publisher and its subscribers, in either version of MQTT. Pure.

use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{
    MessageExpiryInterval, Packet, Properties, PropertiesParse, PropertiesSize, PropertiesToBuffers, Property, Qos,
    VariableByteInteger, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// As published: 0 or 1.
    pub quality: u8,
    /// As published.
    pub retain: bool,
    /// Those of MQTT 5 that go on to subscribers, without the expiry.
    pub properties: Properties,
    /// When it is of no use any more, milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// The client that published it; `None`: the service.
    pub publisher: Option<String>,
}

impl Message {
    /// A message of the service itself.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Message {
        let (topic, payload) = (topic.into(), payload.into());
        Message { topic, payload, quality: 1, retain: false, properties: Vec::new(), expires_ms: None, publisher: None }
    }

    /// What it takes in a queue, bytes.
    pub fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.size()
    }

    /// As a packet for one subscriber at `now` (milliseconds since 1970).
    pub fn packet(&self, version: Version, form: Form, now: i64) -> Result<Packet, MqttError> {
        let qos = if form.id.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        if version == Version::V5_0 {
            let mut properties = self.properties.clone();
            if let Some(expires) = self.expires_ms {
                let seconds = u32::try_from((expires - now).max(0) / 1000).unwrap_or(u32::MAX);
                properties.push(MessageExpiryInterval::new(seconds)?.into());
            }
            let mut builder =
                v5_0::Publish::builder().topic_name(self.topic.as_str())?.qos(qos).retain(form.retain).dup(form.again);
            if let Some(id) = form.id {
                builder = builder.packet_id(id);
            }
            return Ok(builder.props(properties).payload(self.payload.as_slice()).build()?.into());
        }
        let mut builder =
            v3_1_1::Publish::builder().topic_name(self.topic.as_str())?.qos(qos).retain(form.retain).dup(form.again);
        if let Some(id) = form.id {
            builder = builder.packet_id(id);
        }
        Ok(builder.payload(self.payload.as_slice()).build()?.into())
    }
}

/// How a message is sent to one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// `None` is QoS 0.
    pub id: Option<u16>,
    /// It may have been sent before.
    pub again: bool,
    /// The retain mark.
    pub retain: bool,
}

/// The properties of a publication or will that go on to subscribers (MQTT 5, 3.3.2.3).
pub fn carried(properties: &[Property]) -> Properties {
    let goes_on = |p: &&Property| {
        matches!(
            p,
            Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(_)
        )
    };
    properties.iter().filter(goes_on).cloned().collect()
}

/// When a publication with these properties is of no use any more.
pub fn expiry(properties: &[Property], now: i64) -> Option<i64> {
    properties.iter().find_map(|p| match p {
        Property::MessageExpiryInterval(p) => Some(now + i64::from(p.val()) * 1000),
        _ => None,
    })
}

/// Properties as bytes: as on the wire, their length before them. Nothing if there are none. `expires` notes that the
/// publisher gave an expiry; when that is is kept beside.
pub fn encode(properties: &Properties, expires: bool) -> Vec<u8> {
    let mut properties = properties.clone();
    if let (true, Ok(mark)) = (expires, MessageExpiryInterval::new(0)) {
        properties.push(mark.into());
    }
    let Some(length) = u32::try_from(properties.size()).ok().filter(|l| *l > 0).and_then(VariableByteInteger::from_u32)
    else {
        return Vec::new();
    };
    let mut bytes = length.to_continuous_buffer();
    properties.to_buffers().iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// What [`encode`] made, and whether the publisher gave an expiry. What cannot be read is left out: the message matters
/// more.
pub fn decode(bytes: &[u8]) -> (Properties, bool) {
    let mut properties = match bytes {
        [] => Vec::new(),
        _ => Properties::parse(bytes).map(|(properties, _)| properties).unwrap_or_default(),
    };
    let all = properties.len();
    properties.retain(|p| !matches!(p, Property::MessageExpiryInterval(_)));
    let expires = properties.len() < all;
    (properties, expires)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_protocol_core::mqtt::packet::{ContentType, GenericPacketTrait, TopicAlias, UserProperty};

    #[test]
    fn properties_go_on_to_subscribers_and_through_the_queue() {
        let given: Properties = vec![
            TopicAlias::new(3).unwrap().into(),
            ContentType::new("text/plain").unwrap().into(),
            UserProperty::new("a", "b").unwrap().into(),
            MessageExpiryInterval::new(10).unwrap().into(),
        ];
        let kept = carried(&given);
        assert_eq!(kept, given[1..3]);
        assert_eq!(decode(&encode(&kept, false)), (kept.clone(), false));
        assert_eq!(decode(&encode(&kept, true)), (kept, true));
        assert_eq!(encode(&Vec::new(), false), Vec::<u8>::new());
        assert_eq!(expiry(&given, 5_000), Some(15_000));
        assert_eq!(decode(&[9, 9, 9]), (Vec::new(), false));
    }

    #[test]
    fn the_time_that_is_left_goes_on_in_version_5_alone() {
        let message = Message { expires_ms: Some(10_000), ..Message::new("t", "x") };
        let form = Form { id: Some(7), again: true, retain: false };
        let Packet::V5_0Publish(five) = message.packet(Version::V5_0, form, 4_000).unwrap() else { panic!() };
        assert_eq!((five.props().clone(), five.dup()), (vec![MessageExpiryInterval::new(6).unwrap().into()], true));
        let three = message.packet(Version::V3_1_1, Form { id: None, again: false, retain: true }, 4_000).unwrap();
        assert_eq!(three.to_continuous_buffer(), [0x31, 4, 0, 1, b't', b'x']);
    }
}
