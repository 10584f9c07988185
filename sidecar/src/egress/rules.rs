//! Where the sidecar may go: hosts by name, networks by address. Nothing here touches the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;
use url::{Host, Url};

use super::EgressError;

/// How far outbound traffic may go: model sites, files by URL, remote servers. Printers and the database have their own ways.
#[derive(Args, Clone, Debug)]
pub struct EgressOptions {
    /// Hosts that may be reached (comma separated): example.org, *.example.org, example.org:8443, or * for any
    #[arg(
        long = "egress-allow",
        env = "ODIN_EGRESS_ALLOW",
        value_delimiter = ',',
        default_value = "*.thingiverse.com"
    )]
    pub allow: Vec<HostRule>,
    /// Networks of the farm's own that may be reached as well, also without TLS, for example 10.1.0.0/16 (comma separated)
    #[arg(
        long = "egress-private",
        env = "ODIN_EGRESS_PRIVATE",
        value_delimiter = ','
    )]
    pub private: Vec<Network>,
    /// No traffic to public addresses at all; what egress-private names stays reachable
    #[arg(long, env = "ODIN_AIR_GAP")]
    pub air_gap: bool,
}

/// One entry of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    /// `None`: any host.
    name: Option<String>,
    below: bool,
    port: Option<u16>,
}

impl std::str::FromStr for HostRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            format!("{text:?} must be a host, *.host, host:port or *; without a scheme or a path")
        };
        if text == "*" {
            return Ok(HostRule {
                name: None,
                below: false,
                port: None,
            });
        }
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // The same reader as for addresses that are asked for, so that both are written alike.
        let url = Url::parse(&format!("https://{rest}/")).map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?;
        let plain = rest.contains(['/', '@', '?', '#', '*']) || url.path() != "/";
        if plain || (below && !matches!(url.host(), Some(Host::Domain(_)))) {
            return Err(wrong());
        }
        let port = match rest.rsplit_once(':') {
            Some((_, port)) if !rest.ends_with(']') => Some(port.parse().map_err(|_| wrong())?),
            _ => None,
        };
        Ok(HostRule {
            name: Some(host.to_owned()),
            below,
            port,
        })
    }
}

impl HostRule {
    fn covers(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|p| p != port) {
            return false;
        }
        let Some(name) = &self.name else {
            return true;
        };
        match host.strip_suffix(name.as_str()) {
            Some("") => !self.below,
            Some(before) => self.below && before.ends_with('.'),
            None => false,
        }
    }
}

/// A network as address/length; an address alone is itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong =
            || format!("{text:?} must be a network as 10.1.0.0/16 or fd00::/8, or one address");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(bits);
        if length > bits {
            return Err(wrong());
        }
        let mask = u128::MAX
            .checked_shl(bits - length)
            .unwrap_or(0)
            // The fixed beginning of an IPv4 address in IPv6 always counts.
            | if bits == 32 { u128::MAX << 32 } else { 0 };
        Ok(Network {
            address: wide(address) & mask,
            mask,
        })
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        wide(address) & self.mask == self.address
    }
}

/// Every address as IPv6: IPv4 in its mapped form.
fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[derive(Clone, Debug)]
pub struct Rules {
    allow: Vec<HostRule>,
    private: Vec<Network>,
    air_gap: bool,
}

impl Rules {
    pub fn new(options: &EgressOptions) -> Self {
        Rules {
            allow: options.allow.clone(),
            private: options.private.clone(),
            air_gap: options.air_gap,
        }
    }

    /// One line for a readiness report.
    pub fn summary(&self) -> String {
        match (self.air_gap, self.private.is_empty()) {
            (true, true) => "air gap: nothing may be reached".to_owned(),
            (true, false) => "air gap: only the farm's own networks may be reached".to_owned(),
            (false, _) => format!("{} entries in the list of allowed hosts", self.allow.len()),
        }
    }

    /// A URL as it will be asked for, or why it will not be.
    pub fn url(&self, text: &str) -> Result<Url, EgressError> {
        let url = Url::parse(text.trim())
            .map_err(|_| EgressError::refused("this is not a URL", "Give https://host/path."))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(EgressError::refused(
                format!("{} is not a way to the web", url.scheme()),
                "Give https://host/path.",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::refused(
                "the URL holds a user name or password",
                "Credentials belong into the farm's secrets, not into a URL.",
            ));
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(EgressError::refused(
                "the URL names no host",
                "Give https://host/path.",
            ));
        };
        let name = host.to_string();
        if !self.allow.iter().any(|rule| rule.covers(&name, port)) {
            return Err(EgressError::refused(
                format!("{name}:{port} is not on the list of hosts that may be reached"),
                "The operator adds the host to ODIN_EGRESS_ALLOW of the sidecars.",
            ));
        }
        // A name is looked at again when it has been resolved.
        let address = match host {
            Host::Ipv4(v4) => Some(IpAddr::V4(v4)),
            Host::Ipv6(v6) => Some(IpAddr::V6(v6)),
            Host::Domain(_) => None,
        };
        if let Some(address) = address {
            if !self.may_reach(address, url.scheme() == "https") {
                return Err(self.address_refused(&name));
            }
        } else if self.air_gap && self.private.is_empty() {
            return Err(self.address_refused(&name));
        }
        Ok(url)
    }

    /// Public addresses by TLS only; the farm's own networks any way.
    pub fn may_reach(&self, address: IpAddr, tls: bool) -> bool {
        self.private.iter().any(|network| network.holds(address))
            || (tls && !self.air_gap && is_public(address))
    }

    pub fn address_refused(&self, host: &str) -> EgressError {
        if self.air_gap {
            EgressError::refused(
                format!("{host} is outside the farm's own networks, and this farm has an air gap"),
                "The operator has set ODIN_AIR_GAP; only networks in ODIN_EGRESS_PRIVATE may be reached.",
            )
        } else {
            EgressError::refused(
                format!("{host} has no address that may be reached: private networks are closed, and public hosts need https"),
                "Use https, or the operator adds the network to ODIN_EGRESS_PRIVATE.",
            )
        }
    }
}

/// Addresses anybody on the internet could mean: not this machine, not its networks, not a machine that hands traffic on.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    // IPv4 in disguise is what it hides.
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        // Tunnels, benchmarks, documentation and other special ranges below 2001:200::
        [0x2001, second, ..] if second < 0x200 => false,
        [0x2001, 0xdb8, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &str, private: &str, air_gap: bool) -> Rules {
        let list = |text: &str| {
            text.split(',')
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        Rules {
            allow: list(allow).iter().map(|t| t.parse().unwrap()).collect(),
            private: list(private).iter().map(|t| t.parse().unwrap()).collect(),
            air_gap,
        }
    }

    #[test]
    fn hosts() {
        let r = rules(
            "api.example.org,*.models.example,shop.example:8443",
            "",
            false,
        );
        for good in [
            "https://api.example.org/x",
            "https://API.example.org:443/",
            "https://a.b.models.example/",
            "https://shop.example:8443/",
        ] {
            assert!(r.url(good).is_ok(), "{good}");
        }
        for bad in [
            "https://example.org/",
            "https://models.example/",
            "https://evilmodels.example/",
            "https://api.example.org.evil.net/",
            "https://shop.example/",
            "https://user:pw@api.example.org/",
            "https://api.example.org@evil.net/",
            "ftp://api.example.org/",
            "file:///etc/passwd",
            "api.example.org",
            "",
        ] {
            assert!(r.url(bad).is_err(), "{bad}");
        }
        for bad in ["", "https://x", "a/b", "*.1.2.3.4", "a*b", "host:99999"] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_in_any_spelling() {
        let r = rules("*", "", false);
        for bad in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://017700000001/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:a00:1::]/",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://192.168.1.1/",
            "http://93.184.216.34/",
        ] {
            assert!(r.url(bad).is_err(), "{bad}");
        }
        assert!(r.url("https://93.184.216.34/").is_ok());
        assert!(r.url("https://[2606:4700::1111]/").is_ok());
    }

    #[test]
    fn own_networks_and_the_air_gap() {
        let r = rules("*", "10.1.0.0/16,fd00:5::/32,127.0.0.1", true);
        assert!(r.url("http://10.1.2.3:8000/").is_ok());
        assert!(r.url("http://[fd00:5::9]/").is_ok());
        assert!(r.url("http://127.0.0.1:9/").is_ok());
        assert!(r.url("http://127.0.0.2:9/").is_err());
        assert!(r.url("http://10.2.0.1/").is_err());
        assert!(r.url("https://93.184.216.34/").is_err());
        assert!(!r.may_reach("93.184.216.34".parse().unwrap(), true));
        let closed = rules("*", "", true).url("https://example.org/");
        assert!(closed.unwrap_err().to_string().contains("air gap"));
        for bad in ["10.0.0.0/33", "10.0.0", "x/8", "fd00::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(
            all.holds("8.8.8.8".parse().unwrap()) && !all.holds("2606:4700::1".parse().unwrap())
        );
    }
}
