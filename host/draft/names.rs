//! Names that definitions can have, made of names that data have; and paths from one place to another.

use std::path::{Path, PathBuf};

/// What is left of a name is still told apart, and fits a file name.
const LONGEST: usize = 60;

/// A name for a column that stands at this path, other than those that are taken.
pub fn column_name(path: &[String], taken: impl Fn(&str) -> bool) -> String {
    let parts: Vec<String> = path.iter().map(|part| snake(part)).filter(|part| !part.is_empty()).collect();
    let mut name = parts.join("_");
    name.truncate(LONGEST);
    let name = name.trim_matches('_');
    let name = match name.chars().next() {
        None => "column".to_owned(),
        Some('a'..='z') => name.to_owned(),
        Some(_) => format!("column_{name}"),
    };
    if !taken(&name) {
        return name;
    }
    (2..).map(|number| format!("{name}_{number}")).find(|name| !taken(name)).unwrap_or(name)
}

/// `userId` and `User ID` as `user_id`: letters a-z, digits and single underscores.
fn snake(text: &str) -> String {
    let mut name = String::new();
    let characters: Vec<char> = text.chars().collect();
    for (at, character) in characters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| characters.get(before));
        let begins_word = character.is_ascii_uppercase()
            && before.is_some_and(|before| {
                let after = characters.get(at + 1);
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase)
            });
        if begins_word && !name.ends_with('_') {
            name.push('_');
        }
        match character.is_ascii_alphanumeric() {
            true => name.push(character.to_ascii_lowercase()),
            false if !name.ends_with('_') => name.push('_'),
            false => {}
        }
    }
    name.trim_matches('_').to_owned()
}

/// `1 row`, `2 rows`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What has this key: `customer_id` is of a customer.
pub fn entity_name(keys: &[&str]) -> String {
    let stem = |key: &str| {
        let stem = ["_id", "_key", "_uuid", "_guid"].iter().find_map(|end| key.strip_suffix(end));
        match stem.unwrap_or(key) {
            "" | "id" | "key" | "uuid" | "guid" => "entity".to_owned(),
            stem => stem.to_owned(),
        }
    };
    let mut name = keys.iter().map(|key| stem(key)).collect::<Vec<_>>().join("_");
    name.truncate(LONGEST);
    name.trim_end_matches('_').to_owned()
}

/// A path from a directory, both absolute, as a definition would write it.
pub fn relative(path: &Path, directory: &Path) -> Result<String, String> {
    let (mut path_parts, mut directory_parts) = (path.components().peekable(), directory.components().peekable());
    while let (Some(one), Some(other)) = (path_parts.peek(), directory_parts.peek())
        && one == other
    {
        path_parts.next();
        directory_parts.next();
    }
    let mut way = PathBuf::new();
    directory_parts.for_each(|_| way.push(".."));
    path_parts.for_each(|part| way.push(part));
    if way.as_os_str().is_empty() {
        way.push(".");
    }
    let text = way.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("{}: the path is not UTF-8: move the data", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_what_data_call_them() {
        let named =
            |path: &[&str]| column_name(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), |_| false);
        for (path, name) in [
            (&["userId"][..], "user_id"),
            (&["User ID"], "user_id"),
            (&["HTTPStatus"], "http_status"),
            (&["order", "unitPrice"], "order_unit_price"),
            (&["2nd"], "column_2nd"),
            (&["é"], "column"),
            (&["@timestamp"], "timestamp"),
            (&["a__b-"], "a_b"),
            (&["ipV4"], "ip_v4"),
        ] {
            assert_eq!(named(path), name, "{path:?}");
            assert_eq!(crate::define::check_name(name), Ok(()));
        }
        assert_eq!(column_name(&["a".to_owned()], |name| name == "a" || name == "a_2"), "a_3");
    }

    #[test]
    fn a_key_names_what_it_is_of() {
        assert_eq!(entity_name(&["customer_id"]), "customer");
        assert_eq!(entity_name(&["id"]), "entity");
        assert_eq!(entity_name(&["customer_id", "product"]), "customer_product");
    }

    #[test]
    fn paths_go_up_and_down_again() {
        let from = |path: &str, directory: &str| relative(Path::new(path), Path::new(directory)).unwrap();
        assert_eq!(from("/a/data/x.parquet", "/a/shop"), "../data/x.parquet");
        assert_eq!(from("/a/shop/data", "/a/shop"), "data");
        assert_eq!(from("/a", "/a"), ".");
    }
}
