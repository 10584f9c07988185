//! The formulas of Cura's printer definitions: the small part of Python they are written in, as a plain evaluator.
//! The engine itself takes only numbers, so whoever starts it has to work these out.

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    /// The outcome of something that cannot be worked out; it matters only where it is needed.
    Broken,
}

impl Value {
    pub fn truthy(&self) -> bool {
        match self {
            Value::None | Value::Broken => false,
            Value::Bool(b) => *b,
            Value::Number(n) => *n != 0.0,
            Value::Text(t) => !t.is_empty(),
            Value::List(l) => !l.is_empty(),
        }
    }

    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Number(n) => Some(*n),
            Value::Text(t) => t.trim().parse().ok(),
            _ => None,
        }
    }

    /// As the engine wants it after `-s name=`.
    pub fn show(&self) -> String {
        match self {
            Value::None | Value::Broken => String::new(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.to_string(),
            Value::Text(t) => t.clone(),
            Value::List(l) => format!(
                "[{}]",
                l.iter().map(Value::show).collect::<Vec<_>>().join(", ")
            ),
        }
    }
}

/// Where names get their values.
pub trait Names {
    fn value(&mut self, name: &str) -> Option<Value>;
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    Word(String),
    Sign(&'static str),
}

const SIGNS: &[&str] = &[
    "**", "//", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",",
    ".",
];
const LONGEST: usize = 20_000;
const DEEPEST: usize = 60;

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    if rest.len() > LONGEST {
        return None;
    }
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = rest.trim_start();
        } else if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            out.push(Token::Number(rest[..end].parse().ok()?));
            rest = &rest[end..];
        } else if first == '\'' || first == '"' {
            let end = rest[1..].find(first)? + 1;
            out.push(Token::Text(rest[1..end].replace("\\n", "\n")));
            rest = &rest[end + 1..];
        } else if first.is_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            out.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign))?;
            out.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        }
    }
    Some(out)
}

/// The value of a formula, or `None` if it uses something that is not understood.
pub fn evaluate(text: &str, names: &mut dyn Names) -> Option<Value> {
    let tokens = tokens(text)?;
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        depth: 0,
        names,
    };
    let value = reader.choice()?;
    (reader.at == tokens.len() && whole(&value)).then_some(value)
}

fn whole(value: &Value) -> bool {
    match value {
        Value::Broken => false,
        Value::List(list) => list.iter().all(whole),
        _ => true,
    }
}

fn math(a: &Value, b: &Value, work: impl Fn(f64, f64) -> f64) -> Value {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => Some(work(a, b))
            .filter(|n| n.is_finite())
            .map_or(Value::Broken, Value::Number),
        _ => Value::Broken,
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    names: &'a mut dyn Names,
}

impl Reader<'_> {
    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Word(w)) if w == word);
        self.at += usize::from(found);
        found
    }

    fn any_sign(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        signs.iter().copied().find(|sign| self.sign(sign))
    }

    /// a if b else c
    fn choice(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let yes = self.either()?;
        let value = if self.word("if") {
            let condition = self.either()?;
            if !self.word("else") {
                return None;
            }
            let no = self.choice()?;
            match condition {
                Value::Broken => Value::Broken,
                condition if condition.truthy() => yes,
                _ => no,
            }
        } else {
            yes
        };
        self.depth -= 1;
        Some(value)
    }

    fn either(&mut self) -> Option<Value> {
        let mut left = self.both()?;
        while self.word("or") {
            let right = self.both()?;
            if left != Value::Broken && !left.truthy() {
                left = right;
            }
        }
        Some(left)
    }

    fn both(&mut self) -> Option<Value> {
        let mut left = self.not()?;
        while self.word("and") {
            let right = self.not()?;
            if left.truthy() {
                left = right;
            }
        }
        Some(left)
    }

    fn not(&mut self) -> Option<Value> {
        let mut times = 0;
        while self.word("not") {
            times += 1;
        }
        let value = self.comparison()?;
        Some(match value {
            value if times == 0 => value,
            Value::Broken => Value::Broken,
            value => Value::Bool(value.truthy() == (times % 2 == 0)),
        })
    }

    fn comparison(&mut self) -> Option<Value> {
        let mut left = self.sum()?;
        let mut holds: Option<bool> = None;
        let mut broken = false;
        loop {
            let here = if let Some(sign) = self.any_sign(&["==", "!=", "<=", ">=", "<", ">"]) {
                let right = self.sum()?;
                let answer = compare(sign, &left, &right);
                left = right;
                answer
            } else {
                let negated = self.word("not");
                if !self.word("in") {
                    return match (negated, broken, holds) {
                        (true, ..) => None,
                        (_, true, _) => Some(Value::Broken),
                        (_, _, Some(holds)) => Some(Value::Bool(holds)),
                        _ => Some(left),
                    };
                }
                let right = self.sum()?;
                let found = contains(&right, &left);
                left = right;
                found.map(|found| found != negated)
            };
            broken |= here.is_none();
            holds = Some(holds.unwrap_or(true) && here.unwrap_or(false));
        }
    }

    fn sum(&mut self) -> Option<Value> {
        let mut left = self.product()?;
        while let Some(sign) = self.any_sign(&["+", "-"]) {
            let right = self.product()?;
            left = match (sign, left, right) {
                ("+", Value::Text(a), Value::Text(b)) => Value::Text(a + &b),
                ("+", Value::List(mut a), Value::List(b)) => {
                    a.extend(b);
                    Value::List(a)
                }
                ("+", a, b) => math(&a, &b, |a, b| a + b),
                (_, a, b) => math(&a, &b, |a, b| a - b),
            };
        }
        Some(left)
    }

    fn product(&mut self) -> Option<Value> {
        let mut left = self.signed()?;
        while let Some(sign) = self.any_sign(&["*", "//", "/", "%"]) {
            let right = self.signed()?;
            // Division by zero is not finite, so it is broken.
            left = math(&left, &right, |a, b| match sign {
                "*" => a * b,
                "/" => a / b,
                "//" => (a / b).floor(),
                _ => a - b * (a / b).floor(),
            });
        }
        Some(left)
    }

    fn signed(&mut self) -> Option<Value> {
        if self.sign("-") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return None;
            }
            let value = math(&Value::Number(0.0), &self.signed()?, |a, b| a - b);
            self.depth -= 1;
            return Some(value);
        }
        let base = self.atom()?;
        if self.sign("**") {
            let power = self.signed()?;
            return Some(math(&base, &power, f64::powf));
        }
        Some(base)
    }

    fn atom(&mut self) -> Option<Value> {
        let token = self.tokens.get(self.at)?.clone();
        self.at += 1;
        let mut value = match token {
            Token::Number(n) => Value::Number(n),
            Token::Text(t) => Value::Text(t),
            Token::Sign("(") => {
                let value = self.choice()?;
                if self.sign(",") {
                    let mut all = vec![value];
                    all.extend(self.list(")")?);
                    Value::List(all)
                } else if self.sign(")") {
                    value
                } else {
                    return None;
                }
            }
            Token::Sign("[") => Value::List(self.list("]")?),
            Token::Sign(_) => return None,
            Token::Word(word) => self.named(word)?,
        };
        while self.sign("[") {
            let index = self.choice()?.number();
            if !self.sign("]") {
                return None;
            }
            value = match (value, index) {
                (Value::List(list), Some(index)) => {
                    let at = if index < 0.0 {
                        list.len() as f64 + index
                    } else {
                        index
                    };
                    let found = if at >= 0.0 {
                        list.get(at as usize)
                    } else {
                        None
                    };
                    found.cloned().unwrap_or(Value::Broken)
                }
                _ => Value::Broken,
            };
        }
        Some(value)
    }

    fn list(&mut self, end: &str) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        while !self.sign(end) {
            items.push(self.choice()?);
            if !self.sign(",")
                && !matches!(self.tokens.get(self.at), Some(Token::Sign(s)) if *s == end)
            {
                return None;
            }
        }
        Some(items)
    }

    fn named(&mut self, mut word: String) -> Option<Value> {
        while self.sign(".") {
            match self.tokens.get(self.at)? {
                Token::Word(part) => word = format!("{word}.{part}"),
                _ => return None,
            }
            self.at += 1;
        }
        if self.sign("(") {
            // Python's map(f, list) names a function; the few uses are conversions that change nothing here.
            let arguments = if word == "map" {
                self.mapped()?
            } else {
                self.list(")")?
            };
            return Some(self.function(&word, &arguments).unwrap_or(Value::Broken));
        }
        Some(match word.as_str() {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "None" => Value::None,
            "math.pi" => Value::Number(std::f64::consts::PI),
            name => self.names.value(name).unwrap_or(Value::Broken),
        })
    }

    fn mapped(&mut self) -> Option<Vec<Value>> {
        self.at += 1;
        if !self.sign(",") {
            return None;
        }
        self.list(")")
    }

    fn function(&mut self, name: &str, arguments: &[Value]) -> Option<Value> {
        let number = |at: usize| arguments.get(at).and_then(Value::number);
        // max(a, b) and max([a, b]) are the same.
        let all = || match arguments {
            [Value::List(list)] => list.clone(),
            many => many.to_vec(),
        };
        let numbers = || {
            all()
                .iter()
                .map(Value::number)
                .collect::<Option<Vec<f64>>>()
        };
        let one = Value::Number;
        Some(match name {
            "max" => one(numbers()?.into_iter().fold(f64::NEG_INFINITY, f64::max)),
            "min" => one(numbers()?.into_iter().fold(f64::INFINITY, f64::min)),
            "sum" => one(numbers()?.into_iter().sum()),
            "any" => Value::Bool(all().iter().any(Value::truthy)),
            "all" => Value::Bool(all().iter().all(Value::truthy)),
            "len" => match arguments.first()? {
                Value::List(list) => one(list.len() as f64),
                Value::Text(text) => one(text.chars().count() as f64),
                _ => return None,
            },
            "map" | "list" => Value::List(all()),
            "abs" => one(number(0)?.abs()),
            "int" => one(number(0)?.trunc()),
            "float" => one(number(0)?),
            "str" => Value::Text(arguments.first()?.show()),
            "round" => {
                let scale = 10f64.powi(number(1).unwrap_or(0.0) as i32);
                one((number(0)? * scale).round_ties_even() / scale)
            }
            "math.ceil" => one(number(0)?.ceil()),
            "math.floor" => one(number(0)?.floor()),
            "math.sqrt" => one(number(0).filter(|n| *n >= 0.0)?.sqrt()),
            "math.tan" => one(number(0)?.tan()),
            "math.atan" => one(number(0)?.atan()),
            "math.radians" => one(number(0)?.to_radians()),
            "math.degrees" => one(number(0)?.to_degrees()),
            // One extruder: every way of asking for a setting is the same.
            "resolveOrValue" => self.names.value(&arguments.first()?.show())?,
            "extruderValue" => self.names.value(&arguments.get(1)?.show())?,
            "extruderValues" => Value::List(vec![self.names.value(&arguments.first()?.show())?]),
            "defaultExtruderPosition" => Value::Text("0".into()),
            _ => return None,
        })
    }
}

fn compare(sign: &str, a: &Value, b: &Value) -> Option<bool> {
    let equal = match (a, b) {
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Text(_), _) | (_, Value::Text(_)) => false,
        _ => a == b || a.number().is_some() && a.number() == b.number(),
    };
    Some(match sign {
        "==" => equal,
        "!=" => !equal,
        "<" => a.number()? < b.number()?,
        "<=" => a.number()? <= b.number()?,
        ">" => a.number()? > b.number()?,
        _ => a.number()? >= b.number()?,
    })
}

fn contains(whole: &Value, part: &Value) -> Option<bool> {
    match whole {
        Value::List(list) => Some(
            list.iter()
                .any(|item| compare("==", item, part) == Some(true)),
        ),
        Value::Text(text) => Some(text.contains(&part.show())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Few;
    impl Names for Few {
        fn value(&mut self, name: &str) -> Option<Value> {
            Some(match name {
                "layer_height" => Value::Number(0.2),
                "infill_sparse_density" => Value::Number(20.0),
                "infill_pattern" => Value::Text("grid".into()),
                "support_enable" => Value::Bool(true),
                _ => return None,
            })
        }
    }

    fn says(text: &str) -> Option<String> {
        evaluate(text, &mut Few).map(|v| v.show())
    }

    #[test]
    fn formulas_as_the_definitions_have_them() {
        let infill = "0 if infill_sparse_density == 0 else (0.4 * 100) / infill_sparse_density * (2 if infill_pattern == 'grid' else (3 if infill_pattern in ['triangles', 'cubic'] else 1))";
        assert_eq!(says(infill).as_deref(), Some("4"));
        assert_eq!(
            says("math.ceil(round(0.8 / resolveOrValue('layer_height'), 4))").as_deref(),
            Some("4")
        );
        assert_eq!(
            says("max(extruderValues('layer_height')) * 2 ** 3").as_deref(),
            Some("1.6")
        );
        assert_eq!(
            says("not support_enable or layer_height > 0.1 and 'ri' in infill_pattern").as_deref(),
            Some("true")
        );
        assert_eq!(says("[45, -45][-1] // 2").as_deref(), Some("-23"));
        assert_eq!(says("0.1 < layer_height <= 0.2").as_deref(), Some("true"));
        assert_eq!(says("sum(map(int, [1, 2.0, 3]))").as_deref(), Some("6"));
        assert_eq!(says("int(defaultExtruderPosition())").as_deref(), Some("0"));
        assert_eq!(
            says("0 if infill_sparse_density == 20 else 1 / 0 + unknown").as_deref(),
            Some("0")
        );
        assert_eq!(says("'a' not in ['b'] and 7 % 4").as_deref(), Some("3"));
    }

    #[test]
    fn what_is_not_understood_has_no_value() {
        for text in [
            "unknown + 1",
            "1 +",
            "(1",
            "exec('x')",
            "1 / 0",
            "'a' * 2",
            "a.b.c()",
            "[1, 2",
            "",
            "1 2",
            "lambda: 1",
        ] {
            assert_eq!(says(text), None, "{text}");
        }
        assert_eq!(says(&"(".repeat(5000)), None);
        assert_eq!(says(&"-".repeat(5000)), None);
    }
}
