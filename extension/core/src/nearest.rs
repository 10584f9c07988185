//! The word somebody probably meant.

/// The candidate nearest to `word`, if any is near enough to be worth naming.
pub fn nearest<'a, I>(word: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
{
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (score(&word, c), c))
        .filter(|(s, _)| *s >= 0.72)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, c)| c)
}

fn score(word: &str, candidate: &str) -> f64 {
    let candidate = candidate.to_lowercase();
    let close = strsim::normalized_damerau_levenshtein(word, &candidate)
        .max(strsim::jaro_winkler(word, &candidate) - 0.08);
    // A word wholly inside the other (printer / printer_id) is what people mean by leaving a part off.
    if word.len() >= 3 && (candidate.contains(word) || word.contains(candidate.as_str())) {
        close.max(0.85)
    } else {
        close
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const NAMES: [&str; 4] = ["quantity", "printer_id", "model_id", "priority"];

    #[test]
    fn typos_and_halves_are_found() {
        assert_eq!(nearest("quantiy", NAMES), Some("quantity"));
        assert_eq!(nearest("printer", NAMES), Some("printer_id"));
        assert_eq!(nearest("Priorty", NAMES), Some("priority"));
    }

    #[test]
    fn a_stranger_gets_no_guess() {
        assert_eq!(nearest("zzz", NAMES), None);
        assert_eq!(nearest("", NAMES), None);
    }
}
