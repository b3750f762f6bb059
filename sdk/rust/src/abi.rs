//! The contract's functions as a Wasm module exports them: the canonical ABI of `sdk/wit/udf.wit`, written by hand.
//!
//! Why not `wit-bindgen`: its macro brings a WIT parser and a component encoder into every author's build (and into ours,
//! which builds the standard library's module inside a build script), and its lists are copied into types of its own. The
//! world has four functions whose every bulk value is a list of bytes, so by hand it is a few words each, arguments are
//! read in place, and `fold` is the same function natively. The host embeds the world itself, so no metadata is needed.
//!
//! Arguments belong to the module after the call: they are freed when it returns. Results stay until `cabi_post_*`, or the
//! next call. Values are read byte by byte, so allocations need no alignment beyond what is asked for.

#[cfg(target_arch = "wasm32")]
pub use wasm::*;

/// The exports themselves; used by `export!`.
#[doc(hidden)]
#[macro_export]
macro_rules! exports {
    ($module:expr) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn cabi_realloc(old: *mut u8, old_length: usize, align: usize, length: usize) -> *mut u8 {
                $crate::abi::allocate(old, old_length, align, length)
            }
            #[unsafe(no_mangle)]
            extern "C" fn describe() -> *const u32 {
                $crate::abi::describe($module)
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_describe(_: *const u32) {
                $crate::abi::post();
            }
            #[unsafe(no_mangle)]
            extern "C" fn prepare(
                name: *mut u8,
                name_length: usize,
                params: *mut u8,
                params_length: usize,
                inputs: *mut u8,
                inputs_count: usize,
            ) -> *const u32 {
                $crate::abi::prepare($module, [(name, name_length), (params, params_length), (inputs, inputs_count)])
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_prepare(_: *const u32) {
                $crate::abi::post();
            }
            #[unsafe(no_mangle)]
            extern "C" fn fold(
                handle: u32,
                slots: u32,
                keep: u32,
                tape: *mut u8,
                tape_length: usize,
                state_offsets: *mut u8,
                state_offsets_length: usize,
                state_data: *mut u8,
                state_data_length: usize,
                rows: u32,
                columns: *mut u8,
                columns_count: usize,
            ) -> *const u32 {
                let states = [(state_offsets, state_offsets_length), (state_data, state_data_length)];
                let numbers = [handle, slots, keep, rows];
                $crate::abi::fold($module, numbers, (tape, tape_length), states, (columns, columns_count))
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_fold(_: *const u32) {
                $crate::abi::post();
            }
            #[unsafe(no_mangle)]
            extern "C" fn transform(handle: u32, rows: u32, columns: *mut u8, columns_count: usize) -> *const u32 {
                $crate::abi::transform($module, handle, rows, (columns, columns_count))
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_transform(_: *const u32) {
                $crate::abi::post();
            }
        };
    };
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use crate::column::Column;
    use crate::fold::Call;
    use crate::kind::{Field, Kind};
    use crate::module::{Instance, Module};
    use crate::output::Buffers;
    use std::alloc::{Layout, alloc, dealloc, realloc};
    use std::any::Any;
    use std::cell::RefCell;

    type Words = Vec<u32>;

    thread_local! {
        static INSTANCE: RefCell<Option<Instance>> = const { RefCell::new(None) };
        /// What the last call gave: the words that the host reads first, and whatever they point to.
        static RESULT: RefCell<Option<(Words, Box<dyn Any>)>> = const { RefCell::new(None) };
    }

    const COLUMN_WORDS: usize = 8;
    const FIELD_WORDS: usize = 3;

    /// `cabi_realloc`. Memory is bounded by the host, which ends the call when it runs out.
    pub fn allocate(old: *mut u8, old_length: usize, align: usize, length: usize) -> *mut u8 {
        if length == 0 {
            return align as *mut u8;
        }
        let Ok(layout) = Layout::from_size_align(if old_length == 0 { length } else { old_length }, align) else {
            return std::ptr::null_mut();
        };
        // SAFETY: the layout is not empty; `old`, if there is one, came from this function with that length and alignment.
        let block = unsafe { if old_length == 0 { alloc(layout) } else { realloc(old, layout, length) } };
        if block.is_null() { core::arch::wasm32::unreachable() } else { block }
    }

    /// An argument that the host wrote through `cabi_realloc`; freed when it is dropped.
    struct Argument {
        at: *mut u8,
        length: usize,
        align: usize,
    }

    impl Argument {
        fn bytes_of((at, length): (*mut u8, usize)) -> Argument {
            Argument { at, length, align: 1 }
        }

        /// A list of `count` records of `words` words.
        fn records((at, count): (*mut u8, usize), words: usize) -> Argument {
            Argument { at, length: count * words * 4, align: 4 }
        }

        fn bytes(&self) -> &[u8] {
            if self.length == 0 {
                return &[];
            }
            // SAFETY: the canonical ABI says that the host wrote `length` bytes at `at`, which are ours until we free them.
            unsafe { std::slice::from_raw_parts(self.at, self.length) }
        }

        fn text(&self) -> &str {
            std::str::from_utf8(self.bytes()).unwrap_or_default()
        }

        /// The records, as words.
        fn words<const N: usize>(&self) -> impl Iterator<Item = [u32; N]> + '_ {
            self.bytes().chunks_exact(N * 4).map(|record| {
                let (words, _) = record.as_chunks::<4>();
                std::array::from_fn(|at| words.get(at).map_or(0, |word| u32::from_le_bytes(*word)))
            })
        }
    }

    impl Drop for Argument {
        fn drop(&mut self) {
            if let Ok(layout) = Layout::from_size_align(self.length, self.align)
                && self.length > 0
            {
                // SAFETY: the block came from `allocate` with this length and alignment and nothing refers to it any more.
                unsafe { dealloc(self.at, layout) }
            }
        }
    }

    /// The four buffers of each column, as arguments.
    struct Columns(Vec<[Argument; 4]>);

    impl Columns {
        fn of(list: (*mut u8, usize)) -> Columns {
            let records = Argument::records(list, COLUMN_WORDS);
            let buffers = |words: [u32; COLUMN_WORDS]| {
                std::array::from_fn(|at| Argument::bytes_of((words[at * 2] as *mut u8, words[at * 2 + 1] as usize)))
            };
            Columns(records.words::<COLUMN_WORDS>().map(buffers).collect())
        }

        fn columns(&self) -> Vec<Column<'_>> {
            fn column([validity, lists, offsets, data]: &[Argument; 4]) -> Column<'_> {
                Column {
                    validity: validity.bytes(),
                    lists: lists.bytes(),
                    offsets: offsets.bytes(),
                    data: data.bytes(),
                }
            }
            self.0.iter().map(column).collect()
        }
    }

    fn with_instance<T>(module: Module, act: impl FnOnce(&mut Instance) -> T) -> T {
        INSTANCE.with_borrow_mut(|instance| act(instance.get_or_insert_with(|| Instance::new(module))))
    }

    /// Keeps a result until the host has read it, and gives the address of its words.
    fn give(words: Words, owned: impl Any) -> *const u32 {
        let at = words.as_ptr();
        RESULT.replace(Some((words, Box::new(owned))));
        at
    }

    /// Frees the last result.
    pub fn post() {
        RESULT.replace(None);
    }

    fn span(bytes: &[u8]) -> [u32; 2] {
        [bytes.as_ptr() as u32, bytes.len() as u32]
    }

    fn list<const N: usize>(records: &[[u32; N]]) -> [u32; 2] {
        [records.as_ptr() as u32, records.len() as u32]
    }

    pub fn describe(module: Module) -> *const u32 {
        let infos = module.describe();
        let records: Vec<[u32; 7]> = infos
            .iter()
            .map(|info| {
                let [name, doc, params] = [info.name, info.doc, &info.params].map(|text| span(text.as_bytes()));
                [name[0], name[1], info.role as u32, doc[0], doc[1], params[0], params[1]]
            })
            .collect();
        give(list(&records).to_vec(), (infos, records))
    }

    pub fn prepare(module: Module, [name, params, inputs]: [(*mut u8, usize); 3]) -> *const u32 {
        let (name, params) = (Argument::bytes_of(name), Argument::bytes_of(params));
        let records = Argument::records(inputs, FIELD_WORDS);
        let inputs: Option<Vec<Field>> = records
            .words::<FIELD_WORDS>()
            .map(|[at, length, kind]| {
                let name = Argument::bytes_of((at as *mut u8, length as usize));
                // Only the first byte of the word is the kind, the others are padding.
                Some(Field::new(name.text(), Kind::from_number(kind as u8)?))
            })
            .collect();
        let prepared = with_instance(module, |instance| {
            let inputs = inputs.ok_or("an input is of a kind that this module does not know")?;
            let (handle, prepared) = instance.prepare(name.text(), params.text(), &inputs)?;
            Ok::<_, String>((handle, prepared.outputs.clone(), prepared.claims.clone()))
        });
        match prepared {
            Ok((handle, outputs, claims)) => {
                let fields: Vec<[u32; FIELD_WORDS]> = outputs
                    .iter()
                    .map(|field| {
                        let [at, length] = span(field.name.as_bytes());
                        [at, length, field.kind as u32]
                    })
                    .collect();
                let names: Vec<[u32; 2]> = claims.iter().map(|claim| span(claim.as_bytes())).collect();
                let words = [vec![0, handle], list(&fields).to_vec(), list(&names).to_vec()].concat();
                give(words, (outputs, fields, names))
            }
            Err(message) => {
                let [at, length] = span(message.as_bytes());
                give(vec![1, at, length, 0, 0, 0], message)
            }
        }
    }

    fn columns_out(outputs: &[Buffers]) -> Vec<[u32; COLUMN_WORDS]> {
        outputs
            .iter()
            .map(|buffers| {
                let [v, l, o, d] =
                    [&buffers.validity, &buffers.lists, &buffers.offsets, &buffers.data].map(|bytes| span(bytes));
                [v[0], v[1], l[0], l[1], o[0], o[1], d[0], d[1]]
            })
            .collect()
    }

    pub fn fold(
        module: Module,
        [handle, slots, keep, rows]: [u32; 4],
        tape: (*mut u8, usize),
        [state_offsets, state_data]: [(*mut u8, usize); 2],
        columns: (*mut u8, usize),
    ) -> *const u32 {
        let tape = Argument::bytes_of(tape);
        let (state_offsets, state_data) = (Argument::bytes_of(state_offsets), Argument::bytes_of(state_data));
        let columns = Columns::of(columns);
        let columns = columns.columns();
        let call = Call {
            slots,
            keep,
            tape: tape.bytes(),
            state_offsets: state_offsets.bytes(),
            state_data: state_data.bytes(),
            rows,
            columns: &columns,
        };
        match with_instance(module, |instance| instance.fold(handle, &call)) {
            Ok(folded) => {
                let records = columns_out(&folded.outputs);
                let spans = [
                    span(&folded.state_offsets),
                    span(&folded.state_data),
                    list(&records),
                    span(&folded.reasons.offsets),
                    span(&folded.reasons.data),
                ];
                give([&[0], spans.as_flattened()].concat(), (folded, records))
            }
            Err(error) => {
                let spans = [span(&error.ops), span(&error.messages.offsets), span(&error.messages.data)];
                give([&[1], spans.as_flattened(), &[0; 4]].concat(), error)
            }
        }
    }

    pub fn transform(module: Module, handle: u32, rows: u32, columns: (*mut u8, usize)) -> *const u32 {
        let columns = Columns::of(columns);
        let mapped = with_instance(module, |instance| instance.transform(handle, rows, &columns.columns()));
        let records = columns_out(&mapped.outputs);
        let spans = [
            span(&mapped.parents),
            list(&records),
            span(&mapped.failed),
            span(&mapped.messages.offsets),
            span(&mapped.messages.data),
        ];
        give(spans.as_flattened().to_vec(), (mapped, records))
    }
}
