//! `portcullis demo` as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::database::Database;
use super::process::{free_address, portcullis};

pub(crate) struct DemoProcess {
    /// The address of `--listen`.
    pub address: SocketAddr,
    /// What it prints for the person.
    pub text: String,
    log: Arc<Mutex<String>>,
    lines: watch::Receiver<usize>,
    child: Child,
    stdout: ChildStdout,
    place: Database,
}

impl DemoProcess {
    /// Starts it in a folder of its own, and returns once it has printed everything.
    pub(crate) async fn start(arguments: &[&str], env: &[(&str, String)]) -> Self {
        let address = free_address();
        let listen = address.to_string();
        let arguments: Vec<&str> = ["--listen", &listen].iter().chain(arguments).copied().collect();
        Self::launch(address, &arguments, env).await
    }

    /// Starts it as the image does: on every address, by a variable.
    pub(crate) async fn start_open() -> Self {
        let address = free_address();
        let env = [("PORTCULLIS_DEMO_LISTEN", format!("0.0.0.0:{}", address.port()))];
        Self::launch(address, &["--no-client-documents"], &env).await
    }

    async fn launch(address: SocketAddr, arguments: &[&str], env: &[(&str, String)]) -> Self {
        let place = Database::new().await;
        let mut child = portcullis(&place.folder)
            .arg("demo")
            .args(arguments)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (log, (counted, lines)) = (Arc::<Mutex<String>>::default(), watch::channel(0));
        let shared = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *shared.lock().unwrap() += &(line + "\n");
                counted.send_modify(|lines| *lines += 1);
            }
        });
        let mut stdout = child.stdout.take().unwrap();
        let text = tokio::task::spawn_blocking(move || {
            let (mut text, mut byte) = (Vec::new(), [0]);
            while !text.ends_with(b"Ctrl-C") && stdout.read(&mut byte).unwrap() == 1 {
                text.push(byte[0]);
            }
            (String::from_utf8(text).unwrap(), stdout)
        });
        let (text, stdout) = text.await.unwrap();
        assert!(text.contains("Ctrl-C"), "{text}{}", log.lock().unwrap());
        Self { address, text, log, lines, child, stdout, place }
    }

    /// Waits until the log says this.
    pub(crate) async fn says(&mut self, words: &str) {
        let log = Arc::clone(&self.log);
        self.lines
            .wait_for(|_| log.lock().unwrap().contains(words))
            .await
            .unwrap_or_else(|_| panic!("{words}: {}", self.log.lock().unwrap()));
    }

    /// What it has logged so far.
    pub(crate) fn logged(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The folder in which it was started.
    pub(crate) fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// The configuration file that it wrote.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.place.folder.join("portcullis-demo/portcullis.toml")
    }

    /// Ends it as `kill -9` would; its folder stays.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for DemoProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
