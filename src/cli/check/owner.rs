//! Whose port is in use: that of the gateway whose directory this is, or of another program.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;

use crate::cli::address_file::{self, Server};

/// The system's lists of sockets: proc_net_tcp(5).
const SOCKETS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state of a socket that listens, in them.
const LISTENS: &str = "0A";

/// The process of the gateway that listens at `address`, if it is the one with the number `holder`, which has the buffer's
/// directory, or one that this user started in the current directory.
pub(super) fn of(address: SocketAddr, holder: Option<u32>) -> Option<u32> {
    let is_there = |found: SocketAddr| found.port() == address.port();
    let here = address_file::started_here().into_iter().filter(|entry| entry.server == Server::Gateway);
    let mut gateways =
        here.chain(address_file::all().into_iter().filter(|entry| Some(entry.process) == holder));
    if let Some(entry) = gateways.find(|entry| is_there(entry.address) && entry.is_alive()) {
        return Some(entry.process);
    }
    holder.filter(|process| *process != 0 && listens(*process, address.port()))
}

/// Whether a process listens on this port, as far as the system tells this user.
fn listens(process: u32, port: u16) -> bool {
    let sockets: Vec<String> = SOCKETS.iter().flat_map(|list| listening(list, port)).collect();
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let mut targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// The sockets in a list that listen on this port, as the files of a process name them.
fn listening(list: &str, port: u16) -> Vec<String> {
    let Ok(file) = fs::File::open(list) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.filter_map(|line| socket(&line, port)).collect()
}

fn socket(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[_, local, _, state, _, _, _, _, _, inode, ..] = &fields[..] else { return None };
    let (_, found) = local.rsplit_once(':')?;
    let is_it = state == LISTENS && u16::from_str_radix(found, 16).ok() == Some(port);
    is_it.then(|| format!("socket:[{inode}]"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_line_of_the_list_says_who_listens_where() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1221 1 0 100";
        assert_eq!(socket(line, 8080), Some("socket:[1221]".to_owned()));
        assert_eq!(socket(line, 8081), None);
        assert_eq!(socket(&line.replace(" 0A ", " 01 "), 8080), None);
        assert_eq!(socket("  sl  local_address rem_address   st", 8080), None);
    }

    #[test]
    fn the_port_of_this_process_is_its_own_and_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let process = std::process::id();
        assert_eq!(of(address, Some(process)), Some(process));
        assert_eq!(of(address, Some(u32::MAX)), None);
        assert_eq!(of(address, Some(0)), None);
        assert_eq!(of(address, None), None);
        drop(listener);
        assert_eq!(of(address, Some(process)), None);
    }
}
