//! JSON that leaves answer with, made by the server's own functions: no way through text and back.

use pgrx::pg_sys;

/// A JSON object being put together with the server's own hands.
pub struct Made {
    state: *mut pg_sys::JsonbParseState,
    top: *mut pg_sys::JsonbValue,
}

impl Made {
    /// # Safety
    /// What is pushed must live until `finish`; it is not copied before.
    pub unsafe fn new() -> Made {
        let mut made = Made {
            state: std::ptr::null_mut(),
            top: std::ptr::null_mut(),
        };
        made.mark(pg_sys::JsonbIteratorToken::WJB_BEGIN_OBJECT);
        made
    }

    pub unsafe fn mark(&mut self, token: pg_sys::JsonbIteratorToken::Type) {
        self.top = pg_sys::pushJsonbValue(&mut self.state, token, std::ptr::null_mut());
    }

    unsafe fn push(
        &mut self,
        token: pg_sys::JsonbIteratorToken::Type,
        kind: pg_sys::jbvType::Type,
        val: pg_sys::JsonbValue__bindgen_ty_1,
    ) {
        let mut value = pg_sys::JsonbValue { type_: kind, val };
        self.top = pg_sys::pushJsonbValue(&mut self.state, token, &mut value);
    }

    pub unsafe fn text(&mut self, token: pg_sys::JsonbIteratorToken::Type, text: &str) {
        // The server's copy: the pushed value is only pointed to.
        let copy = pg_sys::pnstrdup(text.as_ptr().cast(), text.len());
        let string = pg_sys::JsonbValue__bindgen_ty_1__bindgen_ty_1 {
            len: text.len() as i32,
            val: copy,
        };
        self.push(
            token,
            pg_sys::jbvType::jbvString,
            pg_sys::JsonbValue__bindgen_ty_1 { string },
        );
    }

    pub unsafe fn key(&mut self, name: &str) {
        self.text(pg_sys::JsonbIteratorToken::WJB_KEY, name);
    }

    pub unsafe fn number(&mut self, n: i64) {
        let numeric = pg_sys::int64_to_numeric(n);
        self.push(
            pg_sys::JsonbIteratorToken::WJB_VALUE,
            pg_sys::jbvType::jbvNumeric,
            pg_sys::JsonbValue__bindgen_ty_1 { numeric },
        );
    }

    pub unsafe fn boolean(&mut self, boolean: bool) {
        self.push(
            pg_sys::JsonbIteratorToken::WJB_VALUE,
            pg_sys::jbvType::jbvBool,
            pg_sys::JsonbValue__bindgen_ty_1 { boolean },
        );
    }

    pub unsafe fn null(&mut self) {
        self.push(
            pg_sys::JsonbIteratorToken::WJB_VALUE,
            pg_sys::jbvType::jbvNull,
            pg_sys::JsonbValue__bindgen_ty_1 { boolean: false },
        );
    }

    /// A value found in another JSON.
    pub unsafe fn value(&mut self, value: &mut pg_sys::JsonbValue) {
        let token = pg_sys::JsonbIteratorToken::WJB_VALUE;
        self.top = pg_sys::pushJsonbValue(&mut self.state, token, value);
    }

    /// A whole JSON, as an element or a value; the server takes it apart.
    pub unsafe fn whole(
        &mut self,
        token: pg_sys::JsonbIteratorToken::Type,
        value: *mut pg_sys::varlena,
    ) {
        let json: *mut pg_sys::Jsonb = value.cast();
        let binary = pg_sys::JsonbValue__bindgen_ty_1__bindgen_ty_4 {
            len: (pgrx::varsize(value) - pg_sys::VARHDRSZ) as i32,
            data: &mut (*json).root,
        };
        self.push(
            token,
            pg_sys::jbvType::jbvBinary,
            pg_sys::JsonbValue__bindgen_ty_1 { binary },
        );
    }

    pub unsafe fn finish(mut self, outside: pg_sys::MemoryContext) -> pg_sys::Datum {
        self.mark(pg_sys::JsonbIteratorToken::WJB_END_OBJECT);
        let inside = pg_sys::MemoryContextSwitchTo(outside);
        let made = pg_sys::JsonbValueToJsonb(self.top);
        pg_sys::MemoryContextSwitchTo(inside);
        pg_sys::Datum::from(made)
    }
}
