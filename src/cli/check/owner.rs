//! Finds the owner of a port in use: the gateway of this directory, or another program.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;

use crate::cli::address_file::{self, ServerEntry, ServerKind};

/// The system's lists of sockets: proc_net_tcp(5).
const SOCKETS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state of a listening socket in these lists.
const LISTENS: &str = "0A";

/// The process id of the gateway that listens at `address`, if it is `holder`, which has the buffer's lock, or a gateway
/// that this user started in the current directory.
pub(super) fn find(address: SocketAddr, holder: Option<u32>) -> Option<u32> {
    let is_there = |found: SocketAddr| found.port() == address.port();
    let here = address_file::started_here().into_iter().filter(|entry| entry.server == ServerKind::Gateway);
    let mut gateways =
        here.chain(address_file::all().into_iter().filter(|entry| Some(entry.process) == holder));
    let is_of = |entry: &ServerEntry| is_there(entry.address) || entry.operator.is_some_and(is_there);
    if let Some(entry) = gateways.find(|entry| is_of(entry) && entry.is_alive()) {
        return Some(entry.process);
    }
    holder.filter(|process| *process != 0 && listens(*process, address.port()))
}

/// Whether a process listens on this port, as far as this user may know.
fn listens(process: u32, port: u16) -> bool {
    let sockets: Vec<String> = SOCKETS.iter().flat_map(|list| listening(list, port)).collect();
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let mut targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// The sockets in a list that listen on this port, in the form of a process's file links.
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
    fn a_listening_socket_is_found_in_a_line_of_the_list() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1221 1 0 100";
        assert_eq!(socket(line, 8080), Some("socket:[1221]".to_owned()));
        assert_eq!(socket(line, 8081), None);
        assert_eq!(socket(&line.replace(" 0A ", " 01 "), 8080), None);
        assert_eq!(socket("  sl  local_address rem_address   st", 8080), None);
    }

    #[test]
    fn the_port_of_this_process_belongs_to_no_other_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let process = std::process::id();
        assert_eq!(find(address, Some(process)), Some(process));
        assert_eq!(find(address, Some(u32::MAX)), None);
        assert_eq!(find(address, Some(0)), None);
        assert_eq!(find(address, None), None);
        drop(listener);
        assert_eq!(find(address, Some(process)), None);
    }
}
