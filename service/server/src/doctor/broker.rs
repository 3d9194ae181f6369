//! The external broker, if devices connect to one: does it answer, and does it know those who may connect?

use super::{Finding, error, good, warning};
use crate::ServerError;
use crate::configuration::Configuration;
use belvedere_fleet::authority::Authority;
use belvedere_fleet::external::{BrokerUrl, Examined, External};
use belvedere_store::Store;

const ABOUT: &str = "broker";

/// All checks of the broker.
pub async fn examine(configuration: &Configuration, store: &Store, running: bool) -> Vec<Finding> {
    let url = match configuration.backends.broker() {
        Ok(Some(url)) => url,
        Ok(None) => return Vec::new(),
        Err(e) => {
            return vec![error(
                ABOUT,
                e.to_string(),
                "mend \"broker\" of \"backends\" in service.json, or BELVEDERE_BROKER",
            )];
        }
    };
    let place = format!("{}:{}", url.service.host, url.service.port);
    let external = match external(configuration, store, url) {
        Ok(external) => external,
        Err(e) => return vec![error(ABOUT, format!("{place} cannot be asked: {e}"), "mend the device authority first")],
    };
    match external.examine(store).await {
        Ok(examined) => judge(&place, examined, running),
        Err(e) => {
            let next = "see that mosquitto runs there with the files of `belvedere-service broker-configuration` and what its log says; \
                        until then no device can connect, and what is said to devices waits";
            vec![error(ABOUT, format!("{place}: {e}"), next)]
        }
    }
}

fn external(configuration: &Configuration, store: &Store, url: BrokerUrl) -> Result<External, ServerError> {
    let (certificate, key) = configuration.authority();
    let authority = Authority::open(&certificate, &key)?;
    Ok(External::new(url, &authority, store)?)
}

fn judge(place: &str, Examined { devices, missing, fallen }: Examined, running: bool) -> Vec<Finding> {
    let mut findings = vec![good(ABOUT, format!("{place} answers, and knows {devices} devices"))];
    if missing + fallen > 0 {
        let found = format!("{missing} devices that may connect are not known there, {fallen} that may not are");
        findings.push(match running {
            true => warning(ABOUT, found, "look again in a few seconds; if it stays so, read the service's log"),
            false => good(ABOUT, format!("{found}: the service tells it when it starts")),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_difference_counts_only_while_a_service_is_there_to_mend_it() {
        let examined = |missing, fallen| Examined { devices: 3, missing, fallen };
        let levels =
            |examined, running| judge("b:8883", examined, running).iter().map(|finding| finding.level).collect::<Vec<_>>();
        assert_eq!(levels(examined(0, 0), true), [Level::Good]);
        assert_eq!(levels(examined(1, 0), true), [Level::Good, Level::Warning]);
        assert_eq!(levels(examined(0, 1), true), [Level::Good, Level::Warning]);
        assert_eq!(levels(examined(1, 1), false), [Level::Good, Level::Good]);
    }
}
