//! TLS from the first byte (`tls: required`): a server whose certificate is trusted gets the mail, another one nothing.
//!
//! `tests/fixtures/tls` holds a throw-away authority (its key is gone) and a certificate for `localhost`, made with openssl for a hundred years.

use super::daemon::{Place, wait_for};
use super::smtp::Server;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// TLS in front of a plain server, on a port of its own.
struct Front {
    port: u16,
    /// Connections, and those of them in which both sides agreed on TLS.
    came: Arc<AtomicUsize>,
    agreed: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Front {
    fn of(server: &Server) -> Self {
        let certificate = CertificateDer::from_pem_file(fixture("localhost.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(fixture("localhost.key")).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (came, agreed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (all, good, behind) = (came.clone(), agreed.clone(), server.port);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                all.fetch_add(1, Ordering::SeqCst);
                let (acceptor, good) = (acceptor.clone(), good.clone());
                tokio::spawn(async move {
                    // A client that begins in clear, or does not trust us, ends here.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    good.fetch_add(1, Ordering::SeqCst);
                    let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
        Self {
            port,
            came,
            agreed,
            _runtime: runtime,
        }
    }
}

fn mail(host: &str, port: u16, tls: &str) -> String {
    format!("mail: {{host: {host}, port: {port}, tls: {tls}, from: guard@example.org, to: [oncall@example.org], timeout: 5s, retry_after: 50ms}}")
}

fn trusting(authority: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_delta-guard"));
    command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
    command
}

#[test]
fn a_trusted_server_gets_the_mail_over_tls() {
    let server = Server::start(&[]);
    let front = Front::of(&server);
    let place = Place::new(&mail("localhost", front.port, "required"));
    let daemon = place.start_by(trusting(&fixture("ca.pem")));
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_mail_sent_total 1");
    daemon.wait_for_metric("delta_guard_outbox_length 0");
    let taken = server.taken.lock().unwrap().clone();
    assert_eq!((taken.len(), taken[0].to.clone()), (1, vec!["oncall@example.org".to_owned()]));
    assert!(taken[0].raw.contains("wrong.png"));
    assert!(front.agreed.load(Ordering::SeqCst) >= 1);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_server_that_is_not_trusted_or_speaks_no_tls_gets_nothing() {
    let server = Server::start(&[]);
    let front = Front::of(&server);
    // Another authority than its own; another name than the certificate's; no TLS at all.
    for (host, port, authority) in [
        ("localhost", front.port, "localhost.pem"),
        ("127.0.0.1", front.port, "ca.pem"),
        ("localhost", server.port, "ca.pem"),
    ] {
        let place = Place::new(&mail(host, port, "required"));
        let daemon = place.start_by(trusting(&fixture(authority)));
        place.drop_in(b"wrong.png", "label=dog\n");
        wait_for("a second try", || {
            let page = daemon.get("/metrics")?.1;
            let tries = page
                .lines()
                .find_map(|line| line.strip_prefix("delta_guard_mail_retried_total{why=\"tls\"} "))?;
            tries.parse::<u32>().ok().filter(|tries| *tries >= 2)
        });
        daemon.wait_for_metric("delta_guard_mail_sent_total 0");
        daemon.wait_for_metric("delta_guard_outbox_length 1");
        assert_eq!(daemon.stop(), Some(0));
    }
    assert!(front.came.load(Ordering::SeqCst) >= 4);
    assert_eq!(server.taken.lock().unwrap().len(), 0);
}
