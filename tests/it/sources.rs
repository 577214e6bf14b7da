//! How the sources hang together: a type name stands for one thing, and files of a folder do not import each other in a
//! circle.
//!
//! Both lists of exceptions can only get shorter: an entry that is not needed any longer is a failure, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::documents::programs;

/// Type names that stand for more than one thing, by the reason why they may.
const SHARED_NAMES: &[(&str, &[&str])] = &[(
    "inside of the buffer or of the delivery's worker, which are made anew later",
    &["Books", "Done", "Noted", "Reason", "State", "Waiting"],
)];

/// Files of a folder that import each other in a circle: the module of the folder, and those of the files.
const CIRCLES: &[(&str, &[&str])] = &[];

/// A module or an item, from its crate on.
type ModulePath = Vec<String>;

/// The programs of gateway and crates by their modules.
struct Modules(BTreeMap<ModulePath, String>);

#[test]
fn a_type_name_stands_for_one_thing() {
    let mut homes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in production() {
        for name in text.lines().filter_map(declared_type) {
            homes.entry(name.to_owned()).or_default().insert(path.clone());
        }
    }
    homes.retain(|_, homes| homes.len() > 1);
    let listed: Vec<&str> = SHARED_NAMES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let mut faults = Vec::new();
    for (name, homes) in homes.iter().filter(|(name, _)| !listed.contains(&name.as_str())) {
        let homes: Vec<&str> = homes.iter().map(String::as_str).collect();
        faults.push(format!(
            "`{name}` is a type in {}: name all but one after their subjects",
            homes.join(", ")
        ));
    }
    for (at, name) in listed.iter().enumerate() {
        if !homes.contains_key(*name) || listed[..at].contains(name) {
            faults.push(format!(
                "`{name}` is not shared any longer, or is listed twice: take it out of SHARED_NAMES"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_files_of_one_folder_import_each_other_in_a_circle() {
    let found = Modules::read().circles();
    let circle = |(folder, files): &(&str, &[&str])| {
        let files: BTreeSet<String> = files.iter().map(|file| (*file).to_owned()).collect();
        ((*folder).to_owned(), files)
    };
    let listed: BTreeSet<_> = CIRCLES.iter().map(circle).collect();
    let mut faults = Vec::new();
    for (folder, files) in found.difference(&listed) {
        faults.push(format!("in {folder}, these import each other in a circle: {files:?}"));
    }
    for (folder, files) in listed.difference(&found) {
        faults.push(format!(
            "in {folder}, this is no circle of imports any longer: take it out of CIRCLES: {files:?}"
        ));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The programs, by their paths, without the files that only tests have.
fn production() -> impl Iterator<Item = (String, String)> {
    programs().into_iter().filter(|(path, _)| !path.split('/').any(|part| part == "tests"))
}

/// The name of the type that a line declares. An indented `type` belongs to a trait.
fn declared_type(line: &str) -> Option<&str> {
    let (visibility, rest) = without_visibility(line.trim_start());
    let (keyword, rest) = rest.split_once(' ')?;
    let is_indented = line.starts_with(' ') && visibility.is_empty();
    let is_type =
        matches!(keyword, "struct" | "enum" | "trait" | "union") || (keyword == "type" && !is_indented);
    is_type.then(|| identifier(rest))
}

fn without_visibility(item: &str) -> (&str, &str) {
    let Some(rest) = item.strip_prefix("pub") else { return ("", item) };
    let end = if rest.starts_with('(') { rest.find(')').map_or(0, |end| end + 1) } else { 0 };
    match rest[end..].strip_prefix(' ') {
        Some(rest) => (&item[..item.len() - rest.len()], rest),
        None => ("", item),
    }
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

impl Modules {
    fn read() -> Self {
        let module = |path: &str| {
            let (package, path) = match path.split_once('/') {
                Some((package, below)) if package.starts_with("forebay-") => {
                    (package.replace('-', "_"), below)
                }
                _ => ("forebay".to_owned(), path),
            };
            let parts = path.trim_end_matches(".rs").split('/').map(str::to_owned);
            let mut module: ModulePath = std::iter::once(package).chain(parts).collect();
            module.pop_if(|last| matches!(last.as_str(), "mod" | "lib"));
            module
        };
        Self(
            production()
                .filter(|(path, _)| path != "main.rs")
                .map(|(path, text)| (module(&path), text))
                .collect(),
        )
    }

    /// The circles of imports, each with the module of its folder. A file counts with the folder of the same name, and the
    /// module of a folder not at all: it lists its files, and they may use what it declares.
    fn circles(&self) -> BTreeSet<(String, BTreeSet<String>)> {
        let mut folders: BTreeMap<&[String], BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
        let imports: BTreeMap<&ModulePath, Vec<ModulePath>> =
            self.0.iter().map(|(module, text)| (module, self.imports(module, text))).collect();
        for (module, paths) in &imports {
            for path in paths {
                let home = self.home(path.clone(), &imports);
                let shared = module.iter().zip(&home).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (module.get(shared), home.get(shared))
                    && self.0.contains_key(&home[..=shared])
                {
                    folders.entry(&module[..shared]).or_default().entry(from).or_default().insert(to.clone());
                }
            }
        }
        let circles = |(folder, files): (&[String], BTreeMap<&str, BTreeSet<String>>)| {
            let folder = folder.join("::");
            circles_among(&files).into_iter().map(move |circle| (folder.clone(), circle)).collect::<Vec<_>>()
        };
        folders.into_iter().flat_map(circles).collect()
    }

    /// The imports of a module from its own crate, as paths from the crate on.
    fn imports(&self, module: &ModulePath, text: &str) -> Vec<ModulePath> {
        let absolute = |path: ModulePath| {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let base = match path[0].as_str() {
                "crate" => module[..1].to_vec(),
                "self" => module.clone(),
                "super" => module[..module.len().checked_sub(ups)?].to_vec(),
                name if self.0.contains_key(&[module.as_slice(), &[name.to_owned()]].concat()) => {
                    return Some([module.clone(), path].concat());
                }
                _ => return None,
            };
            Some([&base, &path[ups.max(1)..]].concat())
        };
        paths(text).into_iter().filter_map(absolute).filter(|path| !path.is_empty()).collect()
    }

    /// The place where an item is declared, behind the modules that export it again.
    fn home(&self, mut path: ModulePath, imports: &BTreeMap<&ModulePath, Vec<ModulePath>>) -> ModulePath {
        for _ in 0..8 {
            let longest = (1..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]));
            let Some((module, item)) =
                longest.and_then(|length| Some((path[..length].to_vec(), path.get(length)?)))
            else {
                break;
            };
            let handed_on =
                imports[&module].iter().find(|import| import.last() == Some(item) && **import != path);
            match handed_on {
                Some(import) => path.clone_from(import),
                None => break,
            }
        }
        path
    }
}

/// The groups of files each of which leads to all others of its group.
fn circles_among(imports: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<BTreeSet<String>> {
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            for to in imports.get(file).into_iter().flatten() {
                if reached.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        reached
    };
    let all: BTreeMap<&str, BTreeSet<String>> = imports.keys().map(|file| (*file, reached(file))).collect();
    let circle = |from: &str| -> BTreeSet<String> {
        let is_mutual = |to: &&String| all.get(to.as_str()).is_some_and(|back| back.contains(from));
        all[from].iter().filter(is_mutual).cloned().collect()
    };
    all.keys().map(|file| circle(file)).filter(|circle| circle.len() > 1).collect()
}

/// The paths that a program names: those of its `use`, and others that begin with `crate`, `self` or `super`.
fn paths(program: &str) -> Vec<ModulePath> {
    let mut found = Vec::new();
    let mut elsewhere = String::new();
    let mut lines = program.lines();
    while let Some(line) = lines.next() {
        match without_visibility(line.trim_start()).1.strip_prefix("use ") {
            None => elsewhere.extend([line, "\n"]),
            Some(tree) => {
                let mut tree = tree.to_owned();
                while !tree.contains(';') {
                    let Some(line) = lines.next() else { break };
                    tree.push_str(line.trim());
                }
                expand(tree.trim_end_matches(';'), &[], &mut found);
            }
        }
    }
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in elsewhere.match_indices(start) {
            let is_first = !elsewhere[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let end = elsewhere[at..]
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .map_or(elsewhere.len(), |end| at + end);
            if is_first {
                found.push(
                    elsewhere[at..end]
                        .split("::")
                        .filter(|part| !part.is_empty())
                        .map(str::to_owned)
                        .collect(),
                );
            }
        }
    }
    found
}

/// The paths of a `use`, with its braces taken apart.
fn expand(tree: &str, before: &[String], found: &mut Vec<ModulePath>) {
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, group.trim().strip_suffix('}')),
        None => (tree.split(" as ").next().unwrap_or_default(), None),
    };
    let parts = path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
    let path: ModulePath = before.iter().cloned().chain(parts).collect();
    let Some(group) = group else {
        found.push(path);
        return;
    };
    let mut depth = 0_usize;
    let of_this_group = |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    for branch in group.split(of_this_group).filter(|branch| !branch.trim().is_empty()) {
        expand(branch.trim(), &path, found);
    }
}

#[test]
fn names_and_imports_are_read_as_rust_has_them() {
    let lines = [
        "pub(super) struct A<T>(T);",
        "    enum B {",
        "pub type C = u8;",
        "    type Error = D;",
        "let e = 1;",
    ];
    assert_eq!(lines.map(declared_type), [Some("A"), Some("B"), Some("C"), None, None]);

    let program = "pub(crate) use super::{a::{self, B}, c::D as E};\nuse std::io;\nfn f(g: crate::h::I) { my::super_::j() }\n";
    let paths: Vec<String> = paths(program).iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["super::a::self", "super::a::B", "super::c::D", "std::io", "crate::h::I"]);

    let modules = [
        ("a", "use crate::b::B;"),
        ("b", "use super::C;"),
        ("c", "struct C(crate::a::x::X);"),
        ("a::x", "use crate::d::D;"),
        ("d", ""),
        ("", "mod c;\npub use c::C;"),
    ];
    let path = |module: &str| {
        ["it", module].join("::").split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let modules = Modules(modules.map(|(module, text)| (path(module), text.to_owned())).into());
    let circle = ["a", "b", "c"].map(str::to_owned).into();
    assert_eq!(modules.circles(), [("it".to_owned(), circle)].into());
}
