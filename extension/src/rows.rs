//! Which columns of a row differ from another row of the same table: the change trail turns only those into JSON.

use pgrx::prelude::*;
use pgrx::{pg_sys, FromDatum, PgTupleDesc};

/// A row taken apart.
pub struct Row {
    description: PgTupleDesc<'static>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Row {
    /// # Safety
    /// `datum` must be a composite value of the server's.
    pub unsafe fn read(datum: pg_sys::Datum) -> Row {
        let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()) as pg_sys::HeapTupleHeader;
        let about = (*header).t_choice.t_datum;
        let description = PgTupleDesc::from_pg(pg_sys::lookup_rowtype_tupdesc(
            about.datum_typeid,
            about.datum_typmod,
        ));
        let mut tuple = pg_sys::HeapTupleData {
            t_len: pgrx::varsize(header.cast()) as u32,
            t_data: header,
            ..Default::default()
        };
        let mut values = vec![pg_sys::Datum::from(0); description.len()];
        let mut nulls = vec![false; description.len()];
        pg_sys::heap_deform_tuple(
            &mut tuple,
            description.as_ptr(),
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
        );
        Row {
            description,
            values,
            nulls,
        }
    }

    /// A column's value; NULL and a column that is not there are the same.
    pub fn value(&self, name: &str) -> Option<pg_sys::Datum> {
        let at = (0..self.values.len())
            .find(|&i| self.description.get(i).is_some_and(|c| named(c, name)))?;
        (!self.nulls[at]).then(|| self.values[at])
    }

    /// # Safety
    /// The column is of a type that T reads.
    pub unsafe fn get<T: FromDatum>(&self, name: &str) -> Option<T> {
        T::from_datum(self.value(name)?, false)
    }

    /// Places of the columns that are stored otherwise than in `other`, and of id and org_id. The same value may be stored in two ways, so some of
    /// them may be equal; none that differs is left out.
    fn differing(&self, other: &Row) -> Vec<usize> {
        (0..self.values.len().min(other.values.len()))
            .filter(|&i| {
                let Some(column) = self.description.get(i) else {
                    return false;
                };
                if column.attisdropped || (self.nulls[i] && other.nulls[i]) {
                    return false;
                }
                // The trail names a row by these, changed or not.
                if matches!(column.name(), "id" | "org_id") {
                    return true;
                }
                // SAFETY: both values are of this column's type, and neither is NULL where it is looked at.
                self.nulls[i] != other.nulls[i]
                    || unsafe {
                        bytes(&self.values[i], column.attbyval, column.attlen)
                            != bytes(&other.values[i], column.attbyval, column.attlen)
                    }
            })
            .collect()
    }
}

/// Compared as bytes: a key's row is searched for eight names at every call.
fn named(column: &pg_sys::FormData_pg_attribute, name: &str) -> bool {
    let kept = &column.attname.data;
    name.len() < kept.len()
        && kept[name.len()] == 0
        && name.bytes().zip(kept).all(|(a, b)| a == *b as u8)
}

/// A value as it is stored.
///
/// # Safety
/// `value` must be of a type with this length and way of passing, and not NULL.
unsafe fn bytes(value: &pg_sys::Datum, by_value: bool, length: i16) -> &[u8] {
    if by_value {
        let datum: *const pg_sys::Datum = value;
        return std::slice::from_raw_parts(datum.cast(), size_of::<pg_sys::Datum>());
    }
    let at: *const u8 = value.cast_mut_ptr();
    let length = match length {
        -1 => pgrx::varsize_any(at.cast()),
        -2 => std::ffi::CStr::from_ptr(at.cast()).count_bytes(),
        fixed => fixed.unsigned_abs().into(),
    };
    std::slice::from_raw_parts(at, length)
}

#[no_mangle]
#[doc(hidden)]
pub extern "C" fn pg_finfo_row_differs() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// row_differs(one record, other record): the columns of `one` that differ from `other`, and what names the row.
///
/// # Safety
/// Called by the server with two rows of one table, neither of them NULL (STRICT).
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn row_differs(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let args = (*fcinfo).args.as_slice(2);
    let (one, other) = (Row::read(args[0].value), Row::read(args[1].value));
    let columns = one.differing(&other);
    if columns.is_empty() {
        (*fcinfo).isnull = true;
        return pg_sys::Datum::from(0);
    }
    let narrow = pg_sys::CreateTemplateTupleDesc(columns.len() as i32);
    for (to, from) in columns.iter().enumerate() {
        pg_sys::TupleDescCopyEntry(
            narrow,
            to as i16 + 1,
            one.description.as_ptr(),
            *from as i16 + 1,
        );
    }
    let narrow = pg_sys::BlessTupleDesc(narrow);
    let mut values: Vec<_> = columns.iter().map(|i| one.values[*i]).collect();
    let mut nulls: Vec<_> = columns.iter().map(|i| one.nulls[*i]).collect();
    let tuple = pg_sys::heap_form_tuple(narrow, values.as_mut_ptr(), nulls.as_mut_ptr());
    pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
}
