//! What can be said on the command line.

use crate::backends::Backends;
use crate::logging::LogFormat;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const ROAD: &str = "\
From an empty machine to a running service:
  belvedere-keys init KEYS                                          once; keep copies of KEYS elsewhere
  belvedere-service init  --data DATA --keys KEYS                   once; prints the first access key
  belvedere-service serve --data DATA --advertise-host NAME --device-https 0.0.0.0:8443 --mqtt 0.0.0.0:8883
                                                                    NAME: where devices reach this machine
  export AWS_ENDPOINT_URL=http://127.0.0.1:8000                     and the printed key: AWS's tools talk to it

Then now and then:
  belvedere-service backup --data DATA backup.tar                   while it runs
  belvedere-service doctor --data DATA                              is everything as it must be?

BELVEDERE_LOG filters the log (error, warn, info, debug, or belvedere_api=debug,info).";

/// The service that manages a fleet of Belvedere appliances.
#[derive(Parser)]
#[command(name = "belvedere-service", version, after_help = ROAD, arg_required_else_help = true)]
pub struct Arguments {
    /// How to write the log to standard error
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Make a new service: database, bucket, first access key (printed once)
    Init(Init),
    /// Run the service until SIGTERM or SIGINT; DATA/endpoints.json says where it listens
    Serve(Serve),
    /// Print the API's model for AWS tools that no longer carry it:
    /// `belvedere-service model > panorama.json; aws configure add-model --service-model file://panorama.json`
    Model,
    /// Make the files of an external broker (init --broker mqtts://host:port) for mosquitto 2.0
    #[command(
        after_help = "Copy ca.pem, server.pem, server.key and patterns.acl to --configuration, and dynamic-security.json to \
                            --state; docs/service.md has the commands. The certificate is good for 825 days: call this again, and \
                            replace server.pem and server.key. Leave dynamic-security.json of a broker that runs as it is."
    )]
    BrokerConfiguration {
        /// Directory of the service
        #[arg(long)]
        data: PathBuf,
        /// Further names or addresses of the broker for its certificate (those of its URL are always in it)
        #[arg(long = "name")]
        names: Vec<String>,
        /// Where certificate and key will be on the broker's machine
        #[arg(long, default_value = "/etc/mosquitto/belvedere")]
        configuration: PathBuf,
        /// Where the broker may write
        #[arg(long, default_value = "/var/lib/mosquitto")]
        state: PathBuf,
        /// Directory for the files; made if missing. Nothing there is overwritten
        directory: PathBuf,
    },
    /// Devices, from the command line
    Devices {
        /// Directory of the service
        #[arg(long, global = true, default_value = ".")]
        data: PathBuf,
        /// What to do with them.
        #[command(subcommand)]
        command: Devices,
    },
    /// Print who called what, oldest first
    Audit {
        /// Directory of the service
        #[arg(long)]
        data: PathBuf,
        /// Only the last so many minutes
        #[arg(long, default_value_t = 24 * 60)]
        minutes: u32,
        /// At most so many entries, the newest
        #[arg(long, default_value_t = 1000)]
        limit: u32,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Make, show and end access keys of administrators
    Keys {
        /// Directory of the service
        #[arg(long, global = true, default_value = ".")]
        data: PathBuf,
        /// What to do with them.
        #[command(subcommand)]
        command: Keys,
    },
    /// Print a link that shows the status page in a browser for an hour
    Page {
        /// Directory of the service
        #[arg(long)]
        data: PathBuf,
    },
    /// Show files of objects that nothing names any more, and when each of them goes
    #[command(
        after_help = "The service notes such files every day and deletes them a week later, if its database and its objects belong \
                            together and they are few. A file that is younger than a day may be an upload's and is not shown."
    )]
    Sweep {
        /// Directory of the service
        #[arg(long)]
        data: PathBuf,
        /// Delete them now
        #[arg(long, conflicts_with = "adopt")]
        yes: bool,
        /// Delete nothing; say that this database and these objects belong together, though one is an older copy, or another's
        #[arg(long)]
        adopt: bool,
    },
    /// Copy the whole service into one file, while it runs
    #[command(
        after_help = "The archive holds rows, objects and configuration, with a checksum of everything. The key directory \
                            (belvedere-keys) and, unless asked for, secrets.key are not in it: keep them where keys are kept."
    )]
    Backup {
        /// Directory of the service
        #[arg(long)]
        data: PathBuf,
        /// Put secrets.key into the archive; whoever has the archive then has every password of the fleet
        #[arg(long)]
        with_secrets_key: bool,
        /// The archive; must not exist
        file: PathBuf,
    },
    /// Make the service of a backup again; checks every checksum before it writes
    #[command(
        after_help = "Also the way from SQLite and files to PostgreSQL and a bucket, and back. The database and the bucket (or \
                            its prefix) must be empty. Stop the original service first: devices believe both."
    )]
    Restore {
        /// The archive
        file: PathBuf,
        /// Directory of the new service; must not exist, or be empty
        #[arg(long)]
        data: PathBuf,
        /// secrets.key of the original service, if it is not in the archive
        #[arg(long)]
        secrets_key: Option<PathBuf>,
        /// Key directory, if it is elsewhere now
        #[arg(long)]
        keys: Option<PathBuf>,
        /// Where rows and objects are to be: in SQLite and files of DATA unless said otherwise, wherever they were.
        #[command(flatten)]
        backends: Backends,
    },
    /// Look whether everything is as it must be, and say what to do; ends with 1 if something is wrong
    Doctor {
        /// Directory of the service
        #[arg(long)]
        data: PathBuf,
        /// Read every byte of every object
        #[arg(long)]
        bytes: bool,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
}

/// `init`.
#[derive(Args)]
pub struct Init {
    /// Directory of the service; made if missing
    #[arg(long)]
    pub data: PathBuf,
    /// Key directory made by `belvedere-keys init`
    #[arg(long)]
    pub keys: PathBuf,
    /// Account number
    #[arg(long, default_value = "123456789012")]
    pub account: String,
    /// Region in which appliances sign their requests
    #[arg(long, default_value = "us-east-1")]
    pub region: String,
    /// Further names or addresses for the service's certificate (localhost, 127.0.0.1 and 10.0.2.2 are always in it)
    #[arg(long = "name")]
    pub names: Vec<String>,
    /// Where rows and objects are.
    #[command(flatten)]
    pub backends: Backends,
    /// Neither quotas nor rates (`limits` in DATA/service.json; else the developer guide's)
    #[arg(long)]
    pub unlimited: bool,
}

/// `serve`.
#[derive(Args)]
pub struct Serve {
    /// Directory of the service
    #[arg(long)]
    pub data: PathBuf,
    /// Where to answer the API in plain HTTP (port 0: any); keep it on the loopback address
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub api: String,
    /// Where to answer it over TLS with the service's own certificate, and devices' requests for credentials
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub device_https: String,
    /// Where to answer MQTT over TLS
    #[arg(long, default_value = "127.0.0.1:8883")]
    pub mqtt: String,
    /// Name or address at which appliances reach this machine; the default is for virtual appliances on this one
    #[arg(long, default_value = "10.0.2.2")]
    pub advertise_host: String,
    /// Where to answer people's tools over TLS with a certificate of yours; devices keep to --device-https
    #[arg(long, requires = "certificate")]
    pub https: Option<String>,
    /// PEM file of that certificate and those above it; read again on SIGHUP and when it changes
    #[arg(long, requires = "key", requires = "https")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Where to answer /metrics for Prometheus, to anybody who can connect (such as 127.0.0.1:9464); off unless given
    #[arg(long)]
    pub metrics: Option<String>,
    /// Seconds that requests under way get to finish when the service stops
    #[arg(long, default_value = "10")]
    pub stop_seconds: u64,
}

/// `devices`.
#[derive(Subcommand)]
pub enum Devices {
    /// Show all devices
    List,
    /// Lock a device out within five seconds, for good: it comes back only as a new device
    Revoke {
        /// Its name or identifier
        device: String,
    },
    /// Delete a device and free its appliance, also one that was locked out; `aws panorama delete-device` does the same
    /// for one that was not
    #[command(
        after_help = "The appliance hears of it when it next reaches the service, within about a minute while it is connected. It \
                            then gives up its identity, removes its applications with their data, restarts, and takes the \
                            stick of any service."
    )]
    Release {
        /// Its name or identifier
        device: String,
    },
}

/// `keys`.
#[derive(Subcommand)]
pub enum Keys {
    /// Make a key and print it once
    Create {
        /// Whose it is, for people
        #[arg(long, default_value = "")]
        description: String,
        /// Days until the key ends by itself; for ever unless given
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_in_days: Option<u32>,
    },
    /// Show all keys, without secrets
    List,
    /// End a key at once
    Revoke {
        /// Which key
        access_key_id: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_explains_itself() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", sub.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn a_certificate_comes_with_its_key_and_its_port() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("x serve --data d --https :1 --certificate c --key k"));
        assert!(!parse("x serve --data d --https :1"));
        assert!(!parse("x serve --data d --certificate c --key k"));
        assert!(!parse("x serve --data d --https :1 --certificate c"));
    }
}
