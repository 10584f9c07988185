//! Is a text one SQL expression? Access rules carry filters that become policies; a filter that could
//! close its bracket and go on as another statement must never get that far.

use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CString;

/// True when `SELECT (text)` is one statement of one column with no other clause. Text that does not
/// parse raises the parser's own error, which names the place.
#[pg_extern(immutable)]
fn is_expression(text: &str) -> bool {
    let Ok(sql) = CString::new(format!("SELECT ({text}\n)")) else {
        return false;
    };
    // SAFETY: raw_parser only reads the text and allocates its tree in the current memory context.
    unsafe {
        let tree = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        only::<pg_sys::RawStmt>(tree).is_some_and(|raw| is_bare_select(raw.stmt))
    }
}

/// # Safety
/// `node` comes from the parser.
unsafe fn is_bare_select(node: *mut pg_sys::Node) -> bool {
    if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_SelectStmt {
        return false;
    }
    let select = &*(node as *mut pg_sys::SelectStmt);
    let none = |list: *mut pg_sys::List| list.is_null();
    only::<pg_sys::ResTarget>(select.targetList).is_some_and(|t| !is_row(t.val))
        && none(select.fromClause)
        && none(select.groupClause)
        && none(select.windowClause)
        && none(select.sortClause)
        && none(select.valuesLists)
        && none(select.lockingClause)
        && none(select.distinctClause)
        && select.intoClause.is_null()
        && select.whereClause.is_null()
        && select.havingClause.is_null()
        && select.withClause.is_null()
        && select.limitCount.is_null()
        && select.limitOffset.is_null()
        && select.op == pg_sys::SetOperation::SETOP_NONE
}

/// `(a, b)` is a row, not a condition.
///
/// # Safety
/// `node` comes from the parser.
unsafe fn is_row(node: *mut pg_sys::Node) -> bool {
    !node.is_null() && (*node).type_ == pg_sys::NodeTag::T_RowExpr
}

/// The one member of a list, if it has exactly one.
///
/// # Safety
/// `list` is null or a parser's list of `T`.
unsafe fn only<'a, T>(list: *mut pg_sys::List) -> Option<&'a T> {
    if list.is_null() || (*list).length != 1 {
        return None;
    }
    ((*(*list).elements).ptr_value as *const T).as_ref()
}
