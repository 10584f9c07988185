//! Looking for printers in the network, when somebody asks: mDNS, and the broadcast of Bambu Lab printers. Whoever announces
//! itself is asked who it is, because several servers announce themselves as OctoPrint. Nothing is added and no key is sent.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures::StreamExt;
use mdns_sd::{ServiceDaemon, ServiceEvent};
use serde_json::{json, Value};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::http::{Answer, Http};

const SERVICES: [&str; 3] = [
    "_octoprint._tcp.local.",
    "_moonraker._tcp.local.",
    "_prusalink._tcp.local.",
];
const BAMBU_PORT: u16 = 2021;
const BAMBU: &str = "urn:bambulab-com:device:3dprinter:1";
const ASKED_AT_ONCE: usize = 16;
const MOST: usize = 500;

/// {"found": [...], "problems": [...]}: what create_printer would be given, one entry a printer.
pub async fn search(seconds: u64) -> Value {
    let until = Instant::now() + Duration::from_secs(seconds.clamp(2, 15));
    let (announced, broadcast) = tokio::join!(by_mdns(until), by_broadcast(until));
    let mut problems = Vec::new();
    let mut found = broadcast.unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let announced = announced.unwrap_or_else(|problem| {
        problems.push(problem);
        BTreeMap::new()
    });
    let asked = futures::stream::iter(announced.into_iter().take(MOST))
        .map(|(address, name)| async move { who(&address, &name).await })
        .buffered(ASKED_AT_ONCE)
        .filter_map(std::future::ready);
    found.extend(asked.collect::<Vec<_>>().await);
    let detail = format!(
        "{} found. Nothing was added: give one to create_printer, then set its credentials.",
        found.len()
    );
    json!({"found": found, "problems": problems, "detail": detail})
}

/// Addresses and the names under which they announce themselves.
async fn by_mdns(until: Instant) -> Result<BTreeMap<String, String>, String> {
    let wrong = |e| format!("mDNS cannot be used here: {e}");
    let daemon = ServiceDaemon::new().map_err(wrong)?;
    let mut news = Vec::new();
    for service in SERVICES {
        news.push(daemon.browse(service).map_err(wrong)?.into_stream());
    }
    let mut news = futures::stream::select_all(news);
    let mut found = BTreeMap::new();
    while let Ok(Some(event)) = tokio::time::timeout_at(until, news.next()).await {
        if let ServiceEvent::ServiceResolved(service) = event {
            let name = service.fullname.split("._").next().unwrap_or_default();
            let address = service
                .addresses
                .iter()
                .map(|a| a.to_ip_addr())
                .find(IpAddr::is_ipv4);
            if let Some(address) = address {
                found.insert(format!("{address}:{}", service.port), name.to_owned());
            }
        }
    }
    let _ = daemon.shutdown();
    Ok(found)
}

/// Ask a server who it is, without any key: how it refuses tells as much as what it says.
async fn who(address: &str, name: &str) -> Option<Value> {
    let http = Http::new(address, &[]).ok()?;
    let version = http.get("/api/version").await.ok();
    let access = http.get("/access/info").await.ok();
    let (protocol, text) = protocol_of(version.as_ref(), access.as_ref())?;
    Some(
        json!({"protocol": protocol, "address": address, "name": name, "text": text, "serial": null, "needs": match protocol {
            "prusalink" => "api_key, or username and password",
            "moonraker" => "api_key, unless the sidecar is a trusted client",
            _ => "api_key",
        }}),
    )
}

fn protocol_of(
    version: Option<&Answer>,
    access: Option<&Answer>,
) -> Option<(&'static str, String)> {
    let is_moonraker = access
        .filter(|a| a.status.is_success())
        .and_then(|a| a.json().ok())
        .is_some_and(|said| {
            said["result"]["default_source"].is_string()
                || !said["result"]["login_required"].is_null()
        });
    if is_moonraker {
        return Some(("moonraker", "Moonraker".to_owned()));
    }
    let version = version?;
    let said = version.json().unwrap_or_default();
    let text = ["original", "text"]
        .iter()
        .find_map(|key| said[*key].as_str())
        .unwrap_or_default();
    if text.contains("PrusaLink") {
        return Some(("prusalink", text.to_owned()));
    }
    if text.starts_with("OctoPrint") {
        return Some(("octoprint", text.to_owned()));
    }
    match version.status.as_u16() {
        401 if version.asks_for_digest() => Some(("prusalink", "PrusaLink".to_owned())),
        403 if version.complaint().contains("permission") => {
            Some(("octoprint", "OctoPrint".to_owned()))
        }
        _ => None,
    }
}

/// Bambu Lab printers say every five seconds that they are there.
async fn by_broadcast(until: Instant) -> Result<Vec<Value>, String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, BAMBU_PORT))
        .await
        .map_err(|e| format!("Bambu Lab's broadcast on UDP {BAMBU_PORT} cannot be heard: {e}"))?;
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    let mut packet = [0u8; 4096];
    while let Ok(Ok((size, from))) =
        tokio::time::timeout_at(until, socket.recv_from(&mut packet)).await
    {
        let text = String::from_utf8_lossy(&packet[..size]);
        if let Some((serial, entry)) = bambu(&text, from.ip()) {
            if found.len() < MOST {
                found.insert(serial, entry);
            }
        }
    }
    Ok(found.into_values().collect())
}

fn bambu(text: &str, from: IpAddr) -> Option<(String, Value)> {
    let fields: HashMap<String, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim()))
        .collect();
    let field = |name: &str| fields.get(name).copied().filter(|v| v.len() <= 100);
    if field("nt") != Some(BAMBU) {
        return None;
    }
    let serial = field("usn").filter(|s| s.chars().all(|c| c.is_ascii_alphanumeric()))?;
    // What it says of itself counts only where it is an address.
    let address = field("location")
        .and_then(|a| a.parse::<IpAddr>().ok())
        .unwrap_or(from);
    let cloud = field("devconnect.bambu.com") == Some("cloud");
    let text = match cloud {
        true => "Bambu Lab, bound to the cloud: switch on LAN Only Mode and Developer Mode",
        false => "Bambu Lab",
    };
    let entry = json!({"protocol": "bambu", "address": address.to_string(), "name": field("devname.bambu.com"), "model": field("devmodel.bambu.com"),
                       "serial": serial, "text": text, "needs": "access_code"});
    Some((serial.to_owned(), entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bambu_says() {
        let said = "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1990\r\nLocation: 192.168.1.50\r\nNT: urn:bambulab-com:device:3dprinter:1\r\nUSN: 01P00A123456789\r\nDevModel.bambu.com: C12\r\nDevName.bambu.com: Shelf 3\r\nDevConnect.bambu.com: lan\r\n\r\n";
        let from = IpAddr::from([10, 0, 0, 9]);
        let (serial, entry) = bambu(said, from).unwrap();
        assert_eq!(serial, "01P00A123456789");
        assert_eq!(
            (entry["address"].as_str(), entry["name"].as_str()),
            (Some("192.168.1.50"), Some("Shelf 3"))
        );
        assert!(bambu(&said.replace("bambulab", "other"), from).is_none());
        assert!(bambu(&said.replace("01P00A", "01P;DROP "), from).is_none());
        let (_, entry) = bambu(&said.replace("192.168.1.50", "http://evil"), from).unwrap();
        assert_eq!(entry["address"], "10.0.0.9");
    }
}
