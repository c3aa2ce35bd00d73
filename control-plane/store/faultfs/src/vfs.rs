//! The table of C functions through which SQLite sees the disk.
//!
//! Every function gets pointers from SQLite under its documented contract (<https://sqlite.org/c3ref/vfs.html>,
//! <https://sqlite.org/c3ref/io_methods.html>): the file is one this VFS opened, buffers have the length told. None
//! unwinds into C: no code here panics but on a broken contract, and `extern "C"` aborts then.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::ffi;

use crate::world::{Failure, World};

type Shared = Arc<Mutex<World>>;

/// A registered VFS; unregistered with its last user.
pub(crate) struct Registered {
    name: CString,
    vfs: *mut ffi::sqlite3_vfs,
}

// SAFETY: the VFS is only read after it was registered, and SQLite guards its own list of them.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Registered {
    pub fn new(name: CString, world: Shared) -> Registered {
        // SAFETY: all-zero is a valid sqlite3_vfs (null pointers, no functions, zero sizes).
        let mut vfs: ffi::sqlite3_vfs = unsafe { std::mem::zeroed() };
        vfs.iVersion = 2;
        vfs.szOsFile = size_of::<File>() as c_int;
        vfs.mxPathname = 512;
        vfs.zName = name.as_ptr();
        vfs.pAppData = Box::into_raw(Box::new(world)).cast();
        vfs.xOpen = Some(x_open);
        vfs.xDelete = Some(x_delete);
        vfs.xAccess = Some(x_access);
        vfs.xFullPathname = Some(x_full_pathname);
        vfs.xRandomness = Some(x_randomness);
        vfs.xSleep = Some(x_sleep);
        vfs.xCurrentTime = Some(x_current_time);
        vfs.xGetLastError = Some(x_get_last_error);
        vfs.xCurrentTimeInt64 = Some(x_current_time_int64);
        let vfs = Box::into_raw(Box::new(vfs));
        // SAFETY: the VFS and its name live until they are unregistered in `drop`.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite takes the VFS");
        Registered { name, vfs }
    }

    pub fn name(&self) -> &str {
        self.name.to_str().unwrap_or_default()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: registered in `new`, and the last handle to the disk is gone: its connections were closed before.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.vfs);
            let vfs = Box::from_raw(self.vfs);
            drop(Box::from_raw(vfs.pAppData.cast::<Shared>()));
        }
    }
}

/// What SQLite allocates for a file; begins with its own part.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

/// What we keep of an open file.
struct Open {
    world: Shared,
    name: String,
    delete_on_close: bool,
    level: c_int,
    mapped: bool,
    shm_shared: u8,
    shm_exclusive: u8,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// `vfs` is one that [`Registered::new`] made.
unsafe fn world<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Shared {
    // SAFETY: pAppData points to the Shared of that VFS as long as it is registered.
    unsafe { &*(*vfs).pAppData.cast::<Shared>() }
}

/// # Safety
/// `file` was opened by [`x_open`] and is not closed; SQLite uses a file from one thread at a time.
unsafe fn open<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: x_open put a live Open there, x_close takes it.
    unsafe { &mut *(*file.cast::<File>()).open }
}

/// # Safety
/// `name` is null or a C string.
unsafe fn text(name: *const c_char) -> Option<String> {
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, and C strings end.
    Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

fn code(failure: Failure, io: c_int) -> c_int {
    match failure {
        Failure::Io => io,
        Failure::Full => ffi::SQLITE_FULL,
    }
}

unsafe extern "C" fn x_open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's contract; `file` has room for a File, which is written before anyone reads it.
    unsafe {
        let file = file.cast::<File>();
        (*file).base.pMethods = ptr::null();
        let shared = world(vfs);
        let mut state = shared.lock();
        let name = match text(name) {
            Some(name) => name,
            None => format!("temporary-{}", state.random()),
        };
        if state.crashed || !state.open(&name, flags & ffi::SQLITE_OPEN_CREATE != 0) {
            return ffi::SQLITE_CANTOPEN;
        }
        drop(state);
        let opened = Open {
            world: shared.clone(),
            name,
            delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
            level: ffi::SQLITE_LOCK_NONE,
            mapped: false,
            shm_shared: 0,
            shm_exclusive: 0,
        };
        (*file).open = Box::into_raw(Box::new(opened));
        (*file).base.pMethods = &METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite's contract; the Open is taken once, and SQLite does not use the file again.
    unsafe {
        x_shm_unmap(file, 0);
        x_unlock(file, ffi::SQLITE_LOCK_NONE);
        let opened = Box::from_raw((*file.cast::<File>()).open);
        if opened.delete_on_close {
            let _ = opened.world.lock().delete(&opened.name, true);
        }
        (*file).pMethods = ptr::null();
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn x_read(file: *mut ffi::sqlite3_file, into: *mut c_void, len: c_int, at: i64) -> c_int {
    // SAFETY: SQLite's contract; `into` has `len` bytes, zeroed here before a slice is made of them.
    unsafe {
        let opened = open(file);
        ptr::write_bytes(into.cast::<u8>(), 0, len as usize);
        let into = slice::from_raw_parts_mut(into.cast::<u8>(), len as usize);
        match opened.world.lock().read(&opened.name, at as usize, into) {
            Ok(have) if have == len as usize => ffi::SQLITE_OK,
            Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
            Err(_) => ffi::SQLITE_IOERR_READ,
        }
    }
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    len: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite's contract; `from` has `len` bytes.
    unsafe {
        let opened = open(file);
        let data = slice::from_raw_parts(from.cast::<u8>(), len as usize);
        match opened.world.lock().write(&opened.name, at as usize, data) {
            Ok(()) => ffi::SQLITE_OK,
            Err(failure) => code(failure, ffi::SQLITE_IOERR_WRITE),
        }
    }
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite's contract.
    let opened = unsafe { open(file) };
    match opened.world.lock().truncate(&opened.name, size as usize) {
        Ok(()) => ffi::SQLITE_OK,
        Err(failure) => code(failure, ffi::SQLITE_IOERR_TRUNCATE),
    }
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite's contract.
    let opened = unsafe { open(file) };
    match opened.world.lock().sync(&opened.name) {
        Ok(()) => ffi::SQLITE_OK,
        Err(failure) => code(failure, ffi::SQLITE_IOERR_FSYNC),
    }
}

unsafe extern "C" fn x_file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite's contract; `size` may be written.
    unsafe {
        let opened = open(file);
        match opened.world.lock().size(&opened.name) {
            Ok(found) => {
                *size = found as i64;
                ffi::SQLITE_OK
            }
            Err(_) => ffi::SQLITE_IOERR_FSTAT,
        }
    }
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: SQLite's contract.
    let opened = unsafe { open(file) };
    let mut state = opened.world.lock();
    let Some(found) = state.file(&opened.name) else { return ffi::SQLITE_IOERR_LOCK };
    let locks = &mut found.locks;
    if opened.level < ffi::SQLITE_LOCK_SHARED && wanted >= ffi::SQLITE_LOCK_SHARED {
        if locks.pending || locks.exclusive {
            return ffi::SQLITE_BUSY;
        }
        locks.shared += 1;
        opened.level = ffi::SQLITE_LOCK_SHARED;
    }
    if opened.level < ffi::SQLITE_LOCK_RESERVED && wanted >= ffi::SQLITE_LOCK_RESERVED {
        if locks.reserved {
            return ffi::SQLITE_BUSY;
        }
        locks.reserved = true;
        opened.level = ffi::SQLITE_LOCK_RESERVED;
    }
    if wanted == ffi::SQLITE_LOCK_EXCLUSIVE && opened.level < wanted {
        locks.pending = true;
        opened.level = ffi::SQLITE_LOCK_PENDING;
        if locks.shared > 1 {
            return ffi::SQLITE_BUSY;
        }
        locks.exclusive = true;
        opened.level = ffi::SQLITE_LOCK_EXCLUSIVE;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: SQLite's contract.
    let opened = unsafe { open(file) };
    let mut state = opened.world.lock();
    let Some(found) = state.file(&opened.name) else { return ffi::SQLITE_OK };
    let locks = &mut found.locks;
    if opened.level > ffi::SQLITE_LOCK_SHARED && wanted <= ffi::SQLITE_LOCK_SHARED {
        locks.reserved = false;
        if opened.level >= ffi::SQLITE_LOCK_PENDING {
            locks.pending = false;
        }
        if opened.level == ffi::SQLITE_LOCK_EXCLUSIVE {
            locks.exclusive = false;
        }
        opened.level = ffi::SQLITE_LOCK_SHARED;
    }
    if opened.level == ffi::SQLITE_LOCK_SHARED && wanted == ffi::SQLITE_LOCK_NONE {
        locks.shared = locks.shared.saturating_sub(1);
        opened.level = ffi::SQLITE_LOCK_NONE;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: SQLite's contract; `held` may be written.
    unsafe {
        let opened = open(file);
        let reserved = opened.world.lock().file(&opened.name).is_some_and(|found| found.locks.reserved);
        *held = c_int::from(reserved);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn x_sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn x_device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn x_shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite's contract; `out` may be written. Regions are boxed and stay until the last user unmaps them.
    unsafe {
        let opened = open(file);
        *out = ptr::null_mut();
        let mut state = opened.world.lock();
        if state.crashed || size as usize != size_of::<[u64; 4096]>() {
            return ffi::SQLITE_IOERR_SHMMAP;
        }
        let Some(found) = state.file(&opened.name) else { return ffi::SQLITE_IOERR_SHMMAP };
        if !opened.mapped {
            opened.mapped = true;
            found.shm.users += 1;
        }
        while found.shm.regions.len() <= region as usize {
            if extend == 0 {
                return ffi::SQLITE_OK;
            }
            found.shm.regions.push(Box::new([0; 4096]));
        }
        *out = found.shm.regions[region as usize].as_mut_ptr().cast();
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn x_shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    n: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite's contract.
    let opened = unsafe { open(file) };
    let mut state = opened.world.lock();
    let Some(found) = state.file(&opened.name) else { return ffi::SQLITE_IOERR_SHMLOCK };
    let slots = offset as usize..(offset + n) as usize;
    let locks = &mut found.shm.locks;
    let bits: u8 = slots.clone().fold(0, |bits, slot| bits | 1 << slot);
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        for slot in slots {
            if opened.shm_exclusive & 1 << slot != 0 {
                locks[slot] = 0;
            } else if opened.shm_shared & 1 << slot != 0 {
                locks[slot] -= 1;
            }
        }
        opened.shm_exclusive &= !bits;
        opened.shm_shared &= !bits;
        return ffi::SQLITE_OK;
    }
    if flags & ffi::SQLITE_SHM_SHARED != 0 {
        if opened.shm_shared & bits == bits {
            return ffi::SQLITE_OK;
        }
        if slots.clone().any(|slot| locks[slot] < 0) {
            return ffi::SQLITE_BUSY;
        }
        slots.for_each(|slot| locks[slot] += 1);
        opened.shm_shared |= bits;
    } else {
        let own = opened.shm_exclusive;
        if slots.clone().any(|slot| locks[slot] != 0 && own & 1 << slot == 0) {
            return ffi::SQLITE_BUSY;
        }
        slots.for_each(|slot| locks[slot] = -1);
        opened.shm_exclusive |= bits;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn x_shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite's contract: the connection does not use what it had mapped any more.
    unsafe {
        let opened = open(file);
        if !std::mem::take(&mut opened.mapped) {
            return ffi::SQLITE_OK;
        }
        x_shm_lock(file, 0, 8, ffi::SQLITE_SHM_UNLOCK);
        let mut state = opened.world.lock();
        if let Some(found) = state.file(&opened.name) {
            found.shm.users -= 1;
            if found.shm.users == 0 {
                // As the first opener of a real WAL index does: it is rebuilt from the WAL.
                found.shm.regions.clear();
                found.shm.locks = [0; 8];
            }
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn x_delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite's contract.
    let (shared, name) = unsafe { (world(vfs), text(name)) };
    let name = name.unwrap_or_default();
    match shared.lock().delete(&name, sync_folder != 0) {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn x_access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's contract; `out` may be written.
    unsafe {
        let name = text(name).unwrap_or_default();
        let state = world(vfs).lock();
        if state.crashed {
            return ffi::SQLITE_IOERR_ACCESS;
        }
        // As the real layer: an empty journal or WAL counts as none.
        let found = state.exists(&name) && (flags != ffi::SQLITE_ACCESS_EXISTS || state.size(&name) != Ok(0));
        *out = c_int::from(found);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's contract; `out` has `size` bytes, and the name with its NUL is copied only if it fits.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if name.len() > size as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_randomness(vfs: *mut ffi::sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite's contract; `out` has `len` bytes.
    unsafe {
        let mut state = world(vfs).lock();
        for index in 0..len as usize {
            *out.add(index) = state.random() as c_char;
        }
    }
    len
}

unsafe extern "C" fn x_sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    micros
}

/// A fixed day: nothing in the store's files depends on the clock.
const JULIAN_DAY_MS: i64 = 212_000_000_000_000;

unsafe extern "C" fn x_current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite's contract; `out` may be written.
    unsafe { *out = JULIAN_DAY_MS as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_current_time_int64(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite's contract; `out` may be written.
    unsafe { *out = JULIAN_DAY_MS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_get_last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
