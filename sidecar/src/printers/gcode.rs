//! The few lines of G-code that firmwares agree on.

use super::driver::Fault;

/// The part's fan, in percent.
pub fn fan(percent: f64) -> String {
    format!("M106 S{}", (percent * 2.55).round())
}

/// Percent of the speed the file was sliced for.
pub fn speed(percent: f64) -> String {
    format!("M220 S{}", percent.round())
}

/// Leave objects of the running print out, by their numbers.
pub fn skip(objects: &[String]) -> Result<Vec<String>, Fault> {
    objects
        .iter()
        .map(|object| match object.parse::<u32>() {
            Ok(number) => Ok(format!("M486 P{number}")),
            Err(_) => Err(Fault::refused(format!(
                "{object}: this printer counts objects from 0; give numbers"
            ))),
        })
        .collect()
}

/// A name that cannot end its line or begin another command.
pub fn word(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
        .collect()
}

/// Text between quotes, as RepRapFirmware wants it.
pub fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", clean.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(fan(100.0), "M106 S255");
        assert_eq!(fan(0.0), "M106 S0");
        assert_eq!(speed(87.6), "M220 S88");
        assert_eq!(skip(&["3".into()]).unwrap(), ["M486 P3"]);
        assert!(skip(&["3\nM112".into()]).is_err());
        assert_eq!(word("cube_1\nM112;"), "cube_1M112");
        assert_eq!(
            quoted("0:/gcodes/a \"b\".gcode"),
            "\"0:/gcodes/a \"\"b\"\".gcode\""
        );
    }
}
