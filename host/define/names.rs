//! Names: which are allowed, and which one was probably meant.

/// Long enough for a sentence, short enough for a file name made of several.
const LONGEST: usize = 100;

/// Why this is no name, if it is none.
pub fn check_name(name: &str) -> Result<(), String> {
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
    let goes_on = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !starts || !name.chars().all(goes_on) {
        return Err(format!("`{name}` is no name: write a letter a-z, then letters a-z, digits and _"));
    }
    if name.len() > LONGEST {
        return Err(format!("the name `{name}` has {} characters, {LONGEST} are allowed: shorten it", name.len()));
    }
    Ok(())
}

/// `; did you mean `x`?` when one of the known names is close, else which are known.
pub fn hint<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let distance = |name: &str| strsim::damerau_levenshtein(typed, name);
    let nearest = known.iter().map(|name| (distance(name), *name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => format!("did you mean `{name}`?"),
        _ => match known.iter().find(|name| name.len() > 2 && (name.starts_with(typed) || typed.starts_with(**name))) {
            Some(name) => format!("did you mean `{name}`?"),
            None => listed(&known),
        },
    }
}

fn listed(known: &[&str]) -> String {
    const SHOWN: usize = 12;
    let names = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => "there is none yet".to_owned(),
        1..=SHOWN => format!("there is {names}"),
        more => format!("there is {names} and {} more", more - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_listed() {
        assert_eq!(hint("windwo", ["window", "windows", "where"]), "did you mean `window`?");
        assert_eq!(hint("units_sold", ["units_sold_30d"]), "did you mean `units_sold_30d`?");
        assert_eq!(hint("zzzz", ["beta", "alpha"]), "there is `alpha`, `beta`");
        assert_eq!(hint("zzzz", []), "there is none yet");
    }

    #[test]
    fn names_are_lower_case_ascii() {
        assert!(check_name("a_1").is_ok());
        for wrong in ["", "1a", "_a", "A", "a-b", "é", &"a".repeat(101)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
