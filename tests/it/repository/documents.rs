//! What the documents promise is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use portcullis::config::{Config, LimitTrait, limits as limits_of_config};

use crate::repository::architecture::rust_files;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Reads all Rust files of the product and its tests: path and text.
fn code() -> Vec<(String, String)> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    let named = files.into_iter().map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        (file.strip_prefix(root()).unwrap().display().to_string(), text)
    });
    named.collect()
}

/// Returns those of `names` that are no function of ours.
fn not_there<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let code: String = code().into_iter().map(|(_, text)| text).collect();
    names.iter().filter(|name| !code.contains(&format!("fn {name}("))).copied().collect()
}

/// Returns what a document sets in code style.
pub(super) fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_threats_md_or_security_md_names_exists() {
    for (document, fewest) in [("docs/threats.md", 700), ("SECURITY.md", 0)] {
        let text = read(document);
        let names: Vec<&str> = code_spans(&text)
            .filter(|name| name.matches('_').count() >= 3 && !name.contains(['.', '/', ' ']))
            .collect();
        assert!(names.len() >= fewest, "{document} names only {} tests", names.len());
        let missing = not_there(&names);
        assert!(missing.is_empty(), "named in {document} and not there: {missing:#?}");
    }
}

/// Returns the ids that `docs/threats.md` explains: `### CD-01 …` is a threat, `- **C7** …` a rule or requirement.
/// `docs/dev/fuzzing.md` explains those of the fuzz targets.
fn explained_ids() -> BTreeSet<String> {
    let heading = regex_lite::Regex::new(r"(?m)^### ([A-Z]{2,4}-\d{2}) ").unwrap();
    let bold = regex_lite::Regex::new(r"(?m)^- \*\*([A-Z]+-?\d{1,2})\*\* ").unwrap();
    let row = regex_lite::Regex::new(r"(?m)^\| (F\d{1,2}) \|").unwrap();
    let (threats, fuzzing) = (read("docs/threats.md"), read("docs/dev/fuzzing.md"));
    let ids = heading.captures_iter(&threats).chain(bold.captures_iter(&threats));
    ids.chain(row.captures_iter(&fuzzing)).map(|found| found[1].to_owned()).collect()
}

/// Returns the ids that names of tests begin with (`cd_02_…`, `c7_…`) and that comments name ("CD-02", "C7").
fn used_ids(text: &str) -> BTreeSet<String> {
    let name = regex_lite::Regex::new(r"fn ((?:[a-z]{2,4}_\d{2}_)+|[cfkpt]\d{1,2}_)").unwrap();
    let part = regex_lite::Regex::new(r"([a-z]+)_?(\d{1,2})_").unwrap();
    let comment = regex_lite::Regex::new(r"\b(?:[A-Z]{2,4}-\d{2}|[CKMPRT]\d{1,2})\b").unwrap();
    let mut ids = BTreeSet::new();
    for line in text.lines() {
        for found in name.captures_iter(line) {
            for part in part.captures_iter(&found[1]) {
                let dash = if part[1].len() > 1 { "-" } else { "" };
                ids.insert(format!("{}{dash}{}", part[1].to_uppercase(), &part[2]));
            }
        }
        if let Some((_, said)) = line.split_once("//") {
            ids.extend(comment.find_iter(said).map(|found| found.as_str().to_owned()));
        }
    }
    ids.remove("CRC-32"); // a checksum
    ids.remove("ALPN-01"); // a validation of ACME servers
    ids
}

#[test]
fn every_id_in_code_and_tests_is_explained_in_threats_md() {
    let explained = explained_ids();
    assert!(explained.len() > 250, "only {} ids are explained", explained.len());
    let mut unknown = Vec::new();
    for (file, text) in code() {
        let ids = used_ids(&text);
        unknown.extend(ids.difference(&explained).map(|id| format!("{id} in {file}")));
    }
    assert!(unknown.is_empty(), "not in docs/threats.md: {unknown:#?}");
}

/// A reader of a comment has this repository and the standards, and nothing else.
#[test]
fn no_comment_refers_to_documents_outside_the_repository() {
    let outside = regex_lite::Regex::new(
        "(?i)checklist|guide §|house plan|style guide|threat catalogue|threats page|product page|threats §",
    )
    .unwrap();
    let mut found = Vec::new();
    for (file, text) in code() {
        if file.ends_with("repository/documents.rs") {
            continue;
        }
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| outside.is_match(line));
        found.extend(lines.map(|(at, line)| format!("{file}:{}: {}", at + 1, line.trim())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_test_in_the_table_of_provider_behaviours_exists() {
    let table = read("tests/it/upstream/identity_provider/mod.rs");
    let rows = table.lines().filter(|line| line.starts_with("//! | "));
    let names: Vec<&str> =
        rows.flat_map(code_spans).filter(|name| !name.contains(['.', '/'])).collect();
    assert!(names.len() > 60, "only {} tests are named", names.len());
    let missing = not_there(&names);
    assert!(missing.is_empty(), "named in the table and not there: {missing:#?}");
}

/// The blocks of TOML in a document.
fn toml_blocks(text: &str) -> Vec<&str> {
    text.split("```toml").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_whole_configuration_in_the_documents_loads() {
    let secret = std::env::temp_dir().join("portcullis-documents-secret");
    fs::write(&secret, "secret").unwrap();
    let file = regex_lite::Regex::new(r#"\{ file = "[^"]*" \}"#).unwrap();
    let variable = regex_lite::Regex::new(r#"\{ env = "([^"]*)" \}"#).unwrap();
    let mut documents = vec![root().join("README.md"), root().join("docs/rules.md")];
    for folder in ["docs/identity-providers", "docs/quickstart"] {
        files_below(&root().join(folder), &mut documents);
    }
    documents.retain(|document| is_markdown(document));
    let mut loaded_blocks = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        let in_place = format!("{{ file = {:?} }}", secret.to_str().unwrap());
        let text = file.replace_all(&text, in_place.as_str());
        // Without public_url it is a fragment that shows one thing.
        for block in toml_blocks(&text).into_iter().filter(|block| block.contains("public_url")) {
            let env: BTreeMap<String, String> = variable
                .captures_iter(block)
                .map(|captures| (captures[1].to_owned(), "x".to_owned()))
                .collect();
            let name = document.file_name().unwrap().to_str().unwrap();
            let loaded = Config::load(Some((Path::new(name), block.to_owned())), &env);
            let loaded = loaded.unwrap_or_else(|problems| panic!("{name}: {problems}\n{block}"));
            assert_eq!(loaded.warnings, Vec::<String>::new(), "{name}");
            loaded_blocks += 1;
        }
    }
    assert!(loaded_blocks >= 20, "only {loaded_blocks} configurations found");
}

#[test]
fn the_fragments_of_the_guide_to_clients_load_in_a_whole_configuration() {
    let whole = read("README.md");
    let whole = toml_blocks(&whole).into_iter().find(|block| block.contains("okta")).unwrap();
    let guide = read("docs/clients.md");
    let long = "x".repeat(32);
    let env = ["OKTA_CLIENT_SECRET", "INTRANET_SECRET"].map(|name| (name.to_owned(), long.clone()));
    for block in toml_blocks(&guide) {
        let text = format!("{whole}\n{block}");
        let loaded =
            Config::load(Some((Path::new("clients.md"), text)), &BTreeMap::from(env.clone()));
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{block}"));
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

#[test]
fn every_audit_event_is_explained() {
    let document = read("docs/operations/audit.md");
    let events = document.split("## Events\n").nth(1).unwrap().split("\n## ").next().unwrap();
    for event in portcullis::telemetry::audit::EVENTS {
        let name = format!("`{event}`");
        assert!(events.contains(&name), "{event} is not in docs/operations/audit.md");
    }
}

#[test]
fn the_table_of_limits_has_every_limit_with_its_default() {
    let whole = read("README.md");
    let whole = toml_blocks(&whole).into_iter().find(|block| block.contains("okta")).unwrap();
    let env = [("OKTA_CLIENT_SECRET".to_owned(), "x".repeat(32))];
    let loaded =
        Config::load(Some((Path::new("README.md"), whole.to_owned())), &BTreeMap::from(env));
    let shown = loaded.unwrap_or_else(|problems| panic!("{problems}")).show();
    let table: toml::Table = shown.parse().unwrap();
    let limits: BTreeMap<String, String> = table["limits"]
        .as_table()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.to_string().trim_matches('"').to_owned()))
        .collect();
    assert!(limits.len() > 40, "only {} limits: {shown}", limits.len());

    let document = read("docs/operations/limits.md");
    let section = document.split("## All limits\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: BTreeMap<String, String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"))
        .map(|(key, rest)| (key.to_owned(), rest.split('`').next().unwrap().to_owned()))
        .collect();
    assert_eq!(rows, limits);

    let names: BTreeSet<&str> = limits_of_config().map(|limit| limit.name).collect();
    assert_eq!(rows.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
    let document = read("docs/operations/run.md");
    let waits = document.split("### What waits for a restart\n").nth(1).unwrap();
    let waits = waits.split("\n#").next().unwrap();
    let listed: BTreeSet<&str> =
        code_spans(waits).filter(|key| key.starts_with("limits.")).collect();
    let restart = limits_of_config().filter(|limit| limit.is(LimitTrait::Restart));
    assert_eq!(listed, restart.map(|limit| limit.key).collect());

    let example = read("portcullis.example.toml");
    let example: toml::Table = example.parse().unwrap();
    let example: BTreeMap<String, String> = example["limits"]
        .as_table()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.to_string().trim_matches('"').to_owned()))
        .collect();
    assert_eq!(example, limits);
}

/// Collects the files below `folder`, without those that tools install or build there.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || name == "node_modules" || name == "target" {
            continue;
        }
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// Returns the lines of a document that are not in a block of code.
fn lines_outside_blocks(text: &str) -> Vec<&str> {
    let mut in_block = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            lines.push(line);
        }
    }
    lines
}

/// Returns a document without its code.
fn prose(text: &str) -> String {
    let code = regex_lite::Regex::new("(?s)``.+?``|`[^`]+`").unwrap();
    let text = lines_outside_blocks(text).join("\n");
    // By paragraph, so that a missing mark does not turn the rest of the document inside out.
    let paragraphs: Vec<String> =
        text.split("\n\n").map(|text| code.replace_all(text, "").into_owned()).collect();
    paragraphs.join("\n\n")
}

/// Returns the anchors that GitHub gives to the headings of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let link = regex_lite::Regex::new(r"\[([^\]]*)\]\([^)]*\)").unwrap();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in lines_outside_blocks(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let heading = link.replace_all(heading.trim(), "$1").to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let before = times.entry(slug.clone()).or_default();
        anchors.insert(if *before == 0 { slug } else { format!("{slug}-{before}") });
        *before += 1;
    }
    anchors
}

/// Returns where the links of a document lead.
fn links(text: &str) -> Vec<String> {
    let inline = regex_lite::Regex::new(r"\]\(([^)\s]+)").unwrap();
    let reference = regex_lite::Regex::new(r"(?m)^ *\[[^\]]+\]: +(\S+)").unwrap();
    let text = prose(text);
    let found = inline.captures_iter(&text).chain(reference.captures_iter(&text));
    found.map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_link_in_the_documents_leads_to_a_file_and_a_heading() {
    let mut documents = ["README.md", "README.ja.md", "SECURITY.md", "CHANGELOG.md"]
        .map(|name| root().join(name))
        .to_vec();
    for folder in ["docs", "examples"] {
        files_below(&root().join(folder), &mut documents);
    }
    documents.retain(|document| is_markdown(document));
    let (mut followed, mut broken) = (0, Vec::new());
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let target = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(file)
            };
            let has_heading = || {
                let text = fs::read_to_string(&target).unwrap();
                anchors(&text).contains(anchor)
            };
            let leads =
                target.exists() && (anchor.is_empty() || !is_markdown(&target) || has_heading());
            if !leads {
                let document = document.strip_prefix(root()).unwrap().display();
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(followed > 200, "only {followed} links found");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A release is built from these: `scripts/release` refuses a version without its section.
#[test]
fn every_document_that_names_our_version_names_this_one() {
    let version = env!("CARGO_PKG_VERSION");
    let named = format!("name = \"portcullis\"\nversion = \"{version}\"\n");
    for (document, text) in [
        ("CHANGELOG.md", format!("\n## [{version}] - ")),
        ("README.md", format!("\nVersion {version}.")),
        ("docs/install.md", format!("`{version}` is the version")),
        ("docs/operations/upgrade.md", format!("\n### {version}\n")),
        ("Cargo.lock", named.clone()),
        ("fuzz/Cargo.lock", named),
    ] {
        assert!(read(document).contains(&text), "{document} does not have {text:?}");
    }
}

/// Longest line of a document, in characters: it fits a terminal, and a change shows where it is.
const LONGEST_LINE: usize = 100;

#[test]
fn no_line_of_a_document_is_too_long() {
    let definition = regex_lite::Regex::new(r"^\[[^\]]+\]: ").unwrap();
    let mut documents =
        ["README.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root().join(name)).to_vec();
    for folder in ["docs", "examples"] {
        files_below(&root().join(folder), &mut documents);
    }
    let mut found = Vec::new();
    for document in documents.into_iter().filter(|document| is_markdown(document)) {
        let name = document.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".ja.md") {
            continue; // has no spaces to break a line at
        }
        let text = fs::read_to_string(&document).unwrap();
        let lines = lines_outside_blocks(&text).into_iter();
        // Neither a row of a table nor a definition of a link can be broken.
        let lines = lines.filter(|line| !line.starts_with('|') && !definition.is_match(line));
        let long = lines.filter(|line| line.chars().count() > LONGEST_LINE);
        found.extend(long.map(|line| format!("{name}: {line}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Follows from `scripts/test-newcomer`, which runs these documents: it must know what each block is.
#[test]
fn every_block_of_the_quickstarts_says_what_a_newcomer_does_with_it() {
    let mut documents = vec![root().join("README.md")];
    files_below(&root().join("docs/quickstart"), &mut documents);
    let (mut blocks, mut unmarked) = (0, Vec::new());
    for document in documents.into_iter().filter(|document| is_markdown(document)) {
        let text = fs::read_to_string(&document).unwrap();
        let (mut before, mut in_block) = ("", false);
        for line in text.lines().map(str::trim) {
            if line.starts_with("```") {
                let is_marked = before.starts_with("<!-- newcomer: ");
                if !in_block && line != "```text" && !is_marked {
                    let name = document.strip_prefix(root()).unwrap().display();
                    unmarked.push(format!("{name}: after {before:?}"));
                }
                blocks += usize::from(!in_block);
                in_block = !in_block;
            }
            before = line;
        }
    }
    assert!(blocks > 50, "only {blocks} blocks found");
    assert!(unmarked.is_empty(), "{unmarked:#?}");
}

/// A pattern of words, and the phrases in which they are right.
struct RareWords {
    pattern: &'static str,
    right: &'static [&'static str],
}

const fn rare(pattern: &'static str, right: &'static [&'static str]) -> RareWords {
    RareWords { pattern, right }
}

/// Words that readers who learned English at work stumble over: in documents, pages, help and messages.
const RARE_WORDS: &[RareWords] = &[
    rare("mend|mends|mended|mending", &[]),
    rare("anew|whom|whoever|parted", &[]),
    rare("stands? in|turned down|shut out|of ours", &[]),
    rare("(?:is|are) told", &["told apart"]),
    rare("(?:goes|go) on by (?:itself|themselves)", &[]),
    rare("in place of", &[]),
];

/// The same, in documents and pages, where a sentence has room for the usual word: *also*, *compared with*,
/// *continues*, *applies*, *created*, *does not*, *anyone who*.
const UNUSUAL_WORDS: &[RareWords] = &[
    rare(
        "beside",
        &[
            "beside the gateway",
            "*beside*",
            "and beside it",
            "gateway and beside",
            ". beside, fastmcp",
        ],
    ),
    rare("(?:goes|go) on", &[]),
    rare("holds?", &[]),
    rare("made", &["made-up", "made in the future", "\"made", "“made"]),
    rare(
        "(?:is|are) no",
        &[
            "there is no",
            "there are no",
            "is no longer",
            "are no longer",
            "is no more",
            "are no more",
        ],
    ),
    rare(
        "who (?:has|reaches|begins|comes|wants|holds|waits) (?:the|it|to|with|for)",
        &["anyone who", "everybody who", "people who", "somebody who", "a person who"],
    ),
    rare("by themselves", &[]),
];

impl RareWords {
    /// Returns the words that are found in `text`, each with what is around it.
    fn find(&self, text: &str) -> Vec<String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let right: Vec<(usize, usize)> = self
            .right
            .iter()
            .flat_map(|phrase| text.match_indices(phrase))
            .map(|(start, phrase)| (start, start + phrase.len()))
            .collect();
        let pattern = regex_lite::Regex::new(&format!(r"\b(?:{})\b", self.pattern)).unwrap();
        let found = pattern.find_iter(&text).filter(|word| {
            !right.iter().any(|&(start, end)| start < word.end() && word.start() < end)
        });
        let with_surroundings = |word: regex_lite::Match<'_>| {
            let before: Vec<char> = text[..word.start()].chars().rev().take(40).collect();
            let before: String = before.into_iter().rev().collect();
            let after: String = text[word.end()..].chars().take(40).collect();
            format!("{before}[{}]{after}", word.as_str())
        };
        found.map(with_surroundings).collect()
    }
}

#[test]
fn a_rare_word_is_found_except_in_a_phrase_in_which_it_is_right() {
    let is_no = rare("is no", &["there is no"]);
    assert_eq!(is_no.find("There is\nno way. It is no secret.").len(), 1);
    assert_eq!(rare("whom", &[]).find("For Whom\nthe bell"), ["for [whom] the bell"]);
    assert_eq!(rare("whom", &[]).find("whomever"), Vec::<String>::new());
}

/// What people read: documents without their code, and pages without their markup.
fn texts_for_people() -> Vec<(String, String)> {
    let markup = regex_lite::Regex::new(r"(?s)\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|<[^>]*>").unwrap();
    let mut documents =
        ["README.md", "SECURITY.md", "CHANGELOG.md", "portcullis.example.toml", "locales/en.toml"]
            .map(|name| root().join(name))
            .to_vec();
    let mut guides = Vec::new();
    for folder in ["docs", "examples"] {
        files_below(&root().join(folder), &mut guides);
    }
    documents.extend(guides.into_iter().filter(|guide| is_markdown(guide)));
    files_below(&root().join("templates"), &mut documents);
    let texts = documents.into_iter().filter_map(|document| {
        let name = document.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".ja.md") {
            return None;
        }
        let text = fs::read_to_string(&document).unwrap();
        let text = if is_markdown(&document) {
            prose(&text)
        } else if name.starts_with("templates/") {
            markup.replace_all(&text, " ").into_owned()
        } else {
            text
        };
        Some((name, text))
    });
    texts.collect()
}

#[test]
fn no_document_and_no_page_uses_words_that_readers_stumble_over() {
    let texts = texts_for_people();
    assert!(texts.len() > 100, "only {} documents found", texts.len());
    let mut found = Vec::new();
    for (name, text) in texts {
        for words in RARE_WORDS.iter().chain(UNUSUAL_WORDS) {
            found.extend(words.find(&text).into_iter().map(|words| format!("{name}: {words}")));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Texts of Rust files that people may read: sentences in quotes (pages, messages, logs), and the comments that
/// become the help of the command line.
fn sentences_of(file: &str, text: &str) -> String {
    let quoted = regex_lite::Regex::new(r#""((?:[^"\\]|\\.)*)""#).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut sentences = String::new();
    for line in code.lines() {
        let line = line.trim_start();
        if file.starts_with("src/cli/") && line.starts_with("///") {
            sentences.extend([line, "\n"]);
        }
        if line.starts_with("//") {
            continue;
        }
        // A word alone is a name of the program, such as that of a form field.
        let literals = quoted.captures_iter(line).map(|found| found[1].to_owned());
        sentences.extend(literals.filter(|text| text.contains(' ')).map(|text| text + "\n"));
    }
    sentences
}

#[test]
fn no_message_and_no_help_uses_words_that_readers_stumble_over() {
    let (mut found, mut read) = (Vec::new(), 0);
    for (file, text) in code() {
        if !file.starts_with("src/") || file.ends_with("tests.rs") || file.contains("/tests/") {
            continue;
        }
        let sentences = sentences_of(&file, &text);
        read += sentences.lines().count();
        for words in RARE_WORDS {
            found
                .extend(words.find(&sentences).into_iter().map(|words| format!("{file}: {words}")));
        }
    }
    assert!(read > 2000, "only {read} texts found");
    assert!(found.is_empty(), "{found:#?}");
}
