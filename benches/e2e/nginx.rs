//! nginx, which ends TLS and passes requests on over kept connections, as it would in front of a service.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Signal, geteuid, set_parent_process_death_signal};

use crate::tls::{CERTIFICATE, HOST, KEY};

/// The file of its settings in its directory.
const SETTINGS: &str = "nginx.conf";
/// The program, by its name and by its path in Debian: the search path of some users lacks `/usr/sbin`.
const NAMES: [&str; 2] = ["nginx", "/usr/sbin/nginx"];

/// The message for a machine without nginx.
pub(crate) const MISSING: &str =
    "nginx is not installed and is left out (Debian has it: apt-get install nginx-light)";

/// Whether it is installed.
pub(crate) fn is_installed() -> bool {
    program().is_some()
}

fn program() -> Option<&'static str> {
    let answers = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    NAMES.into_iter().find(answers)
}

/// Writes its settings into `directory`: it listens on `address` and passes requests on to `upstream`.
pub(crate) fn write_settings(
    directory: &Path,
    address: SocketAddr,
    upstream: SocketAddr,
) -> anyhow::Result<()> {
    // Its workers would be another user, who could not enter the directory.
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let workers = workers();
    let settings = format!(
        "\
daemon off;
worker_processes {workers};
pid nginx.pid;
error_log stderr error;
{user}
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  scgi_temp_path scgi;
  uwsgi_temp_path uwsgi;
  client_body_buffer_size 128k;
  keepalive_requests 1000000000;
  upstream handler {{
    server {upstream};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {address} ssl;
    server_name {HOST};
    ssl_certificate {CERTIFICATE};
    ssl_certificate_key {KEY};
    ssl_protocols TLSv1.3;
    ssl_session_tickets on;
    ssl_session_cache shared:sessions:10m;
    location / {{
      proxy_pass http://handler;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    );
    fs::write(directory.join(SETTINGS), settings).context("writing the settings of nginx")
}

/// Becomes nginx with the settings in the working directory. It ends when the thread that started this process does.
///
/// # Errors
///
/// It cannot be started; otherwise this does not return.
pub(crate) fn become_nginx() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let directory = std::env::current_dir()?;
    let mut command = Command::new(program().context(MISSING)?);
    command.arg("-p").arg(&directory).args(["-e", "stderr"]).arg("-c").arg(directory.join(SETTINGS));
    Err(command.exec()).context("starting nginx")
}

/// How many processes of it do the work: one for each core.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
