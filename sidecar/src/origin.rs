//! Host and Origin: a web page somewhere must not be able to talk to a sidecar on somebody's own machine.

use axum::response::{IntoResponse, Response};
use http::{header, HeaderMap, HeaderValue, StatusCode, Uri};

use crate::config::Serve;

pub struct Origins {
    /// `None`: any host (the operator said `*`).
    hosts: Option<Vec<Authority>>,
    origins: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Authority {
    host: String,
    /// `None` = any port.
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str) -> Option<Authority> {
        let authority: http::uri::Authority = text.trim().parse().ok()?;
        Some(Authority {
            host: bare(authority.host()),
            port: authority.port_u16(),
        })
    }

    fn allows(&self, other: &Authority) -> bool {
        self.host == other.host && (self.port.is_none() || self.port == other.port)
    }
}

fn bare(host: &str) -> String {
    host.trim_matches(['[', ']']).to_ascii_lowercase()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

impl Origins {
    pub fn new(config: &Serve) -> Self {
        let public = config
            .public_url
            .as_deref()
            .and_then(|url| url.parse::<Uri>().ok());
        let mut hosts: Vec<Authority> = config
            .allowed_hosts
            .iter()
            .filter_map(|host| Authority::parse(host))
            .collect();
        let mut origins: Vec<String> = config
            .allowed_origins
            .iter()
            .map(|origin| origin.trim().trim_end_matches('/').to_ascii_lowercase())
            .collect();
        if let Some(public) = &public {
            if let (Some(scheme), Some(authority)) = (public.scheme_str(), public.authority()) {
                hosts.extend(Authority::parse(authority.as_str()));
                origins.push(format!("{scheme}://{authority}").to_ascii_lowercase());
            }
        }
        let ip = config.listen.ip();
        if !ip.is_unspecified() {
            hosts.push(Authority {
                host: ip.to_string(),
                port: None,
            });
        }
        let any = config.allowed_hosts.iter().any(|host| host.trim() == "*");
        Origins {
            hosts: (!any).then_some(hosts),
            origins,
        }
    }

    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        let host = match headers.get(header::HOST) {
            Some(value) => value.to_str().ok().and_then(Authority::parse),
            // HTTP/2 carries it in the target.
            None => uri.authority().and_then(|a| Authority::parse(a.as_str())),
        };
        let host = host.ok_or("The Host header is missing or unreadable.")?;
        let known = match &self.hosts {
            None => true,
            Some(hosts) => is_loopback(&host.host) || hosts.iter().any(|h| h.allows(&host)),
        };
        if !known {
            return Err("This host name is not served here (ODIN_ALLOWED_HOSTS).");
        }
        match headers.get(header::ORIGIN) {
            Some(origin) if !self.is_allowed(origin) => {
                Err("This web origin is not allowed (ODIN_ALLOWED_ORIGINS).")
            }
            _ => Ok(()),
        }
    }

    /// Named by the operator: the only origins that may read the REST face from a browser.
    pub fn is_configured(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| {
            let origin = origin.trim().to_ascii_lowercase();
            self.origins.iter().any(|o| *o == origin || o == "*")
        })
    }

    fn is_allowed(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let origin = origin.trim().to_ascii_lowercase();
        if self.origins.iter().any(|o| *o == origin || o == "*") {
            return true;
        }
        let local = origin.parse::<Uri>().ok();
        local
            .and_then(|uri| uri.authority().map(|a| bare(a.host())))
            .is_some_and(|host| is_loopback(&host))
    }

    /// A browser's question before the request itself.
    pub fn preflight(&self, uri: &Uri, headers: &HeaderMap) -> Response {
        if let Err(text) = self.check(uri, headers) {
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        if let Some(origin) = headers.get(header::ORIGIN) {
            self.allow(&mut response, origin.clone());
            let out = response.headers_mut();
            out.insert(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("POST, GET, DELETE"),
            );
            let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            if let Some(asked) = asked {
                out.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
        }
        response
    }

    /// The origin was checked before the request was served.
    pub fn allow(&self, response: &mut Response, origin: HeaderValue) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("mcp-session-id, www-authenticate, retry-after, x-request-id"),
        );
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        Origins {
            hosts: Some(vec![Authority::parse("farm.example.org").unwrap()]),
            origins: vec!["https://app.example.org".into()],
        }
    }

    fn check(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        origins().check(&Uri::from_static("/mcp"), &headers).is_ok()
    }

    #[test]
    fn only_known_hosts_are_served() {
        assert!(check("localhost:8808", None));
        assert!(check("[::1]:8808", None));
        assert!(check("127.0.0.1", None));
        assert!(check("Farm.example.org:443", None));
        assert!(!check("evil.example.org", None));
        assert!(!check("farm.example.org.evil.org", None));
    }

    #[test]
    fn only_known_pages_may_ask() {
        assert!(check("localhost", Some("http://localhost:6274")));
        assert!(check("localhost", Some("https://app.example.org")));
        assert!(!check("localhost", Some("http://app.example.org")));
        assert!(!check("localhost", Some("https://evil.example.org")));
        assert!(!check("localhost", Some("http://localhost.evil.org")));
        assert!(!check("localhost", Some("null")));
    }
}
