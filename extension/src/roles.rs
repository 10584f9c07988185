//! The roles somebody is: his own and all he is a member of, through whatever chain. Policies ask this in
//! every query, so it reads the backend's own cache of memberships instead of the catalog.

use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

// Number of pg_auth_members.roleid: 16 put an oid before it, and the bindings do not name the column.
#[cfg(feature = "pg15")]
const ROLEID: i16 = 1;
#[cfg(not(feature = "pg15"))]
const ROLEID: i16 = 2;

/// Names of a role and of every role it is a member of, directly or not; empty when there is no such role.
#[pg_extern(stable)]
fn roles_of(role_name: &str) -> Vec<String> {
    let Ok(name) = CString::new(role_name) else {
        return Vec::new();
    };
    // SAFETY: a cache look-up; missing_ok gives an invalid oid instead of an error.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    if role == pg_sys::Oid::INVALID {
        return Vec::new();
    }
    let mut found = vec![role];
    let mut next = 0;
    while next < found.len() {
        for parent in parents(found[next]) {
            if !found.contains(&parent) {
                found.push(parent);
            }
        }
        next += 1;
    }
    found.into_iter().filter_map(name_of).collect()
}

/// Roles that a role is a direct member of.
fn parents(role: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let none = pg_sys::Datum::from(0);
    // SAFETY: the list is pinned until it is released, its members are rows of pg_auth_members, and the
    // column is taken by its number.
    unsafe {
        let list = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE as i32,
            1,
            pg_sys::Datum::from(role),
            none,
            none,
        );
        let members = (*list).members.as_slice((*list).n_members as usize);
        let roles = members
            .iter()
            .filter_map(|m| {
                let mut is_null = false;
                let value = pg_sys::SysCacheGetAttr(
                    pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE as i32,
                    &mut (**m).tuple,
                    ROLEID,
                    &mut is_null,
                );
                (!is_null).then(|| pg_sys::Oid::from(value.value() as u32))
            })
            .collect();
        pg_sys::ReleaseCatCacheList(list);
        roles
    }
}

fn name_of(role: pg_sys::Oid) -> Option<String> {
    // SAFETY: noerr gives null for a role that is gone.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
