//! `mqtts://host:port`: where an external broker is.

use belvedere_device_protocol::Endpoint;
use url::Url;

const PORT: u16 = 8883;

/// Where the broker is, as the service reaches it and as devices do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// For the service.
    pub service: Endpoint,
    /// For devices.
    pub devices: Endpoint,
}

impl BrokerUrl {
    /// Reads `mqtts://host:port`, or `mqtts://host:port?devices=host:port` if devices reach it elsewhere.
    pub fn parse(text: &str) -> Result<BrokerUrl, String> {
        let url = Url::parse(text.trim()).map_err(|e| format!("not a URL: {e}"))?;
        if url.scheme() != "mqtts" {
            return Err(format!("{}: not a broker that can be used; mqtts://host:port is one", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("neither name nor password belong into the URL: both follow from the service's own keys".into());
        }
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err("nothing follows host and port: mqtts://host:port".into());
        }
        let service = endpoint(url.host_str().unwrap_or(""), url.port().unwrap_or(PORT))?;
        let mut devices = service.clone();
        for (name, value) in url.query_pairs() {
            if name != "devices" {
                return Err(format!("{name}={value} is not known: devices=host:port is"));
            }
            let (host, port) = value.rsplit_once(':').unwrap_or((&value, "8883"));
            devices = endpoint(host, port.parse().map_err(|_| format!("devices={value}: not a port"))?)?;
        }
        Ok(BrokerUrl { service, devices })
    }
}

/// Names and addresses of version 4: the same that a device accepts.
fn endpoint(host: &str, port: u16) -> Result<Endpoint, String> {
    let word = (1..=253).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
    match word && port > 0 {
        true => Ok(Endpoint { host: host.to_owned(), port }),
        false => Err(format!("{host}:{port}: neither a name nor an address with a port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_broker_and_how_devices_reach_it() {
        let url = BrokerUrl::parse("mqtts://broker.example").unwrap();
        assert_eq!((url.service.host.as_str(), url.service.port), ("broker.example", 8883));
        assert_eq!(url.devices, url.service);
        let url = BrokerUrl::parse(" mqtts://127.0.0.1:1884?devices=10.0.2.2:8884\n").unwrap();
        assert_eq!((url.service.port, url.devices.host.as_str(), url.devices.port), (1884, "10.0.2.2", 8884));
        for bad in [
            "mqtt://h", "mqtts://", "mqtts://u:geheim@h", "mqtts://h/topic", "mqtts://h?ca=x", "mqtts://h?devices=a b",
            "mqtts://h:0", "mqtts://h?devices=h:99999", "h:8883",
        ] {
            let refused = BrokerUrl::parse(bad).unwrap_err();
            assert!(!refused.contains("geheim"), "{bad}: {refused}");
        }
    }
}
