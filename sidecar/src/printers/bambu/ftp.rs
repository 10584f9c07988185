//! Files of Bambu Lab printers: FTP inside TLS from the first byte, user bblp, the access code as password.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use suppaftp::list::ListParser;
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsFtpStream};
use suppaftp::types::FileType;
use suppaftp::{FtpError, Status};
use tokio_util::io::StreamReader;

use super::tls::{tls_fault, Identity};
use crate::printers::driver::{Fault, RemoteFile};
use crate::printers::spool::Spooled;

const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const UPLOAD_LIMIT: Duration = Duration::from_secs(600);

pub struct Ftp {
    pub host: String,
    pub port: u16,
    pub code: String,
    pub identity: Arc<Identity>,
}

impl Ftp {
    /// Logged in, with protected data connections.
    async fn open(&self) -> Result<AsyncRustlsFtpStream, Fault> {
        let config = self.identity.config()?;
        let talk = async {
            let connector: suppaftp::tokio_rustls::TlsConnector = Arc::new(config).into();
            let address = (self.host.as_str(), self.port);
            let mut ftp = AsyncRustlsFtpStream::connect_secure_implicit(
                address,
                AsyncRustlsConnector::from(connector),
                &self.host,
            )
            .await?;
            // Data go to the machine that was called, whatever it says.
            ftp.set_passive_nat_workaround(true);
            ftp.login("bblp", &self.code).await?;
            ftp.custom_command("PBSZ 0", &[Status::CommandOk]).await?;
            ftp.custom_command("PROT P", &[Status::CommandOk]).await?;
            ftp.transfer_type(FileType::Binary).await?;
            Ok(ftp)
        };
        match tokio::time::timeout(CONNECT_LIMIT, talk).await {
            Ok(answer) => answer.map_err(|e| fault(&e)),
            Err(_) => Err(Fault::unreachable(
                "the printer's file server does not answer in time",
            )),
        }
    }

    pub async fn probe(&self) -> Result<(), Fault> {
        let mut ftp = self.open().await?;
        let _ = ftp.quit().await;
        Ok(())
    }

    /// Stored whole, or not at all as far as anybody may believe.
    pub async fn store(&self, name: &str, file: &Spooled) -> Result<(), Fault> {
        let mut ftp = self.open().await?;
        let send = async {
            let mut reader =
                StreamReader::new(Box::pin(file.stream()).map_err(std::io::Error::other));
            ftp.put_file(format!("/{name}"), &mut reader).await?;
            ftp.size(format!("/{name}")).await
        };
        let size = tokio::time::timeout(UPLOAD_LIMIT, send)
            .await
            .map_err(|_| Fault::broken("the upload took longer than ten minutes"))?
            .map_err(|e| Fault {
                maybe_sent: true,
                ..fault(&e)
            })?;
        let _ = ftp.quit().await;
        if size as u64 != file.size {
            return Err(Fault::broken(format!(
                "the printer holds {size} of {} bytes",
                file.size
            )));
        }
        Ok(())
    }

    /// `None`: there is no such file.
    pub async fn size_of(&self, name: &str) -> Result<Option<u64>, Fault> {
        let mut ftp = self.open().await?;
        let size = match ftp.size(format!("/{name}")).await {
            Ok(size) => Some(size as u64),
            Err(FtpError::UnexpectedResponse(said)) if said.status == Status::FileUnavailable => {
                None
            }
            Err(e) => return Err(fault(&e)),
        };
        let _ = ftp.quit().await;
        Ok(size)
    }

    pub async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        let mut ftp = self.open().await?;
        let listing = tokio::time::timeout(CONNECT_LIMIT, ftp.list(Some("/")))
            .await
            .map_err(|_| Fault::unreachable("the printer does not list its files in time"))?
            .map_err(|e| fault(&e))?;
        let _ = ftp.quit().await;
        Ok(listing
            .iter()
            .filter_map(|line| ListParser::parse_posix(line).ok())
            .filter(|f| f.is_file() && [".3mf", ".gcode"].iter().any(|end| f.name().ends_with(end)))
            .map(|f| RemoteFile {
                path: f.name().to_owned(),
                size_bytes: i64::try_from(f.size()).ok(),
                date: f
                    .modified()
                    .duration_since(std::time::UNIX_EPOCH)
                    .ok()
                    .and_then(|t| i64::try_from(t.as_secs()).ok()),
                estimated_print_time_s: None,
            })
            .collect())
    }
}

fn fault(error: &FtpError) -> Fault {
    match error {
        FtpError::UnexpectedResponse(said) if said.status == Status::NotLoggedIn => {
            Fault::auth("the printer's file server does not accept the access code (530)")
        }
        FtpError::UnexpectedResponse(said) => Fault::refused(format!(
            "the printer's file server refuses: {}",
            String::from_utf8_lossy(&said.body).trim()
        )),
        FtpError::ConnectionError(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Fault::unreachable("the printer's file server refuses the connection: is a storage card or USB drive in it?")
        }
        other => {
            let said = other.to_string();
            tls_fault(&said).unwrap_or_else(|| {
                Fault::unreachable("the connection to the printer's file server breaks")
            })
        }
    }
}
