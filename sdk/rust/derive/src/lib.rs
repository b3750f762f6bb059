//! The macros of `onefold-udf`: `derive(State)`, `transform` and `params`.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, FnArg, Ident, ItemFn, Pat, ReturnType, Type, parse_macro_input};

/// Encodes a struct as its fields, one after the other, and an enum as the number of the variant and its fields.
#[proc_macro_derive(State)]
pub fn derive_state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    state(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a function of one row a transform: `#[transform]` or `#[transform(outputs(net, tax))]`.
///
/// The name and the first doc line of the function are those of the UDF. A first argument called `params`, a reference,
/// takes the parameters. It returns a value, an option, a tuple or `Rows`, or a `Result` of one of them.
#[proc_macro_attribute]
pub fn transform(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let mut outputs = Vec::new();
    let parser = syn::meta::parser(|meta| {
        if !meta.path.is_ident("outputs") {
            return Err(meta.error("expected outputs(name, …)"));
        }
        meta.parse_nested_meta(|name| {
            outputs.push(name.path.require_ident()?.to_string());
            Ok(())
        })
    });
    parse_macro_input!(arguments with parser);
    transform_of(&function, &outputs).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a struct the parameters of a UDF: read from the definition, described by a JSON Schema.
#[proc_macro_attribute]
pub fn params(_: TokenStream, item: TokenStream) -> TokenStream {
    let item = Tokens::from(item);
    quote! {
        #[derive(::onefold_udf::serde::Deserialize, ::onefold_udf::schemars::JsonSchema)]
        #[serde(crate = "::onefold_udf::serde", deny_unknown_fields)]
        #[schemars(crate = "::onefold_udf::schemars")]
        #item
    }
    .into()
}

fn state(input: &DeriveInput) -> Result<Tokens, Error> {
    let name = &input.ident;
    let (parameters, types, bounds) = input.generics.split_for_impl();
    let (encode, decode) = match &input.data {
        Data::Struct(data) => {
            let (pattern, names) = fields(&data.fields);
            (
                quote! { let Self #pattern = self; #(::onefold_udf::State::encode(#names, out);)* },
                quote! { #(let #names = ::onefold_udf::State::decode(input)?;)* Ok(Self #pattern) },
            )
        }
        Data::Enum(data) => {
            let mut encodes = Vec::new();
            let mut decodes = Vec::new();
            for (number, variant) in data.variants.iter().enumerate() {
                let number = number as u64;
                let (ident, (pattern, names)) = (&variant.ident, fields(&variant.fields));
                encodes.push(quote! {
                    Self::#ident #pattern => {
                        ::onefold_udf::State::encode(&#number, out);
                        #(::onefold_udf::State::encode(#names, out);)*
                    }
                });
                decodes.push(quote! {
                    #number => { #(let #names = ::onefold_udf::State::decode(input)?;)* Ok(Self::#ident #pattern) }
                });
            }
            (
                quote! { match self { #(#encodes)* } },
                quote! {
                    match <u64 as ::onefold_udf::State>::decode(input)? {
                        #(#decodes)*
                        _ => Err(::onefold_udf::Malformed("a variant is not known")),
                    }
                },
            )
        }
        Data::Union(_) => return Err(Error::new(input.span(), "a union cannot be a state: use an enum")),
    };
    Ok(quote! {
        impl #parameters ::onefold_udf::State for #name #types #bounds {
            #[inline]
            fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
                let _ = &out;
                #encode
            }
            #[inline]
            fn decode(
                input: &mut ::onefold_udf::Reader<'_>,
            ) -> ::std::result::Result<Self, ::onefold_udf::Malformed> {
                let _ = &input;
                #decode
            }
        }
    })
}

/// A pattern that binds all fields, which is also the expression that makes the value; and the names it binds.
fn fields(fields: &Fields) -> (Tokens, Vec<Ident>) {
    match fields {
        Fields::Named(named) => {
            let names: Vec<Ident> = named.named.iter().filter_map(|field| field.ident.clone()).collect();
            (quote! { { #(#names),* } }, names)
        }
        Fields::Unnamed(unnamed) => {
            let names: Vec<Ident> = (0..unnamed.unnamed.len()).map(|at| format_ident!("field_{at}")).collect();
            (quote! { ( #(#names),* ) }, names)
        }
        Fields::Unit => (Tokens::new(), Vec::new()),
    }
}

fn transform_of(function: &ItemFn, outputs: &[String]) -> Result<Tokens, Error> {
    let name = &function.sig.ident;
    let text = name.to_string();
    let visibility = &function.vis;
    let doc = doc_line(function);
    let mut params = quote! { () };
    let mut takes_params = false;
    let mut types = Vec::new();
    for (at, argument) in function.sig.inputs.iter().enumerate() {
        let FnArg::Typed(argument) = argument else {
            return Err(Error::new(argument.span(), "a transform is a plain function, without self"));
        };
        let named_params = matches!(&*argument.pat, Pat::Ident(pattern) if pattern.ident == "params");
        match &*argument.ty {
            Type::Reference(reference) if named_params && at == 0 => {
                let inner = &reference.elem;
                params = quote! { #inner };
                takes_params = true;
            }
            other => types.push(with_lifetime(other)),
        }
    }
    let ReturnType::Type(_, returned) = &function.sig.output else {
        return Err(Error::new(function.sig.span(), "a transform returns the values of a row"));
    };
    let (row, fails) = match result_of(returned) {
        Some(row) => (row, true),
        None => ((**returned).clone(), false),
    };
    let row = with_lifetime(&row);
    let names: Vec<Ident> = (0..types.len()).map(|at| format_ident!("input_{at}")).collect();
    let params_argument = takes_params.then(|| quote! { &self.0, });
    let call = quote! { #name(#params_argument #(#names),*) };
    let call = if fails {
        quote! { #call.map_err(|error| error.to_string()) }
    } else {
        quote! { Ok(#call) }
    };
    let input = if types.is_empty() {
        quote! { () }
    } else {
        quote! { (#(#types,)*) }
    };
    let pattern = if types.is_empty() {
        quote! { () }
    } else {
        quote! { (#(#names,)*) }
    };
    let outputs = if outputs.is_empty() { vec!["value".to_owned()] } else { outputs.to_vec() };
    Ok(quote! {
        #function

        #[doc = #doc]
        #[allow(non_camel_case_types, reason = "a transform is named as its function")]
        #visibility struct #name {}

        const _: () = {
            struct Prepared(#params);

            impl ::onefold_udf::transform::Map for Prepared {
                fn map(
                    &self,
                    columns: &[::onefold_udf::column::Column<'_>],
                    rows: usize,
                    out: &mut ::onefold_udf::transform::Mapping,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    self.run(columns, rows, out)
                }
            }

            impl Prepared {
                fn run<'a>(
                    &self,
                    columns: &[::onefold_udf::column::Column<'a>],
                    rows: usize,
                    out: &mut ::onefold_udf::transform::Mapping,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    ::onefold_udf::transform::each_row::<#input, #row>(columns, rows, out, |#pattern| #call)
                }

                fn kinds<'a>() -> (&'static [::onefold_udf::Kind], &'static [::onefold_udf::Kind], bool, bool) {
                    (
                        <#input as ::onefold_udf::row::Row<'a>>::KINDS,
                        <#row as ::onefold_udf::transform::Returned>::KINDS,
                        <#row as ::onefold_udf::transform::Returned>::ONE_TO_ONE,
                        <#input as ::onefold_udf::row::Row<'a>>::EVENT_TIME,
                    )
                }
            }

            impl ::onefold_udf::Udf for #name {
                fn info() -> ::onefold_udf::Info {
                    ::onefold_udf::Info {
                        name: #text,
                        role: ::onefold_udf::Role::Transform,
                        doc: #doc,
                        params: ::onefold_udf::params::schema::<#params>(),
                    }
                }

                fn prepare(
                    params: &str,
                    inputs: &[::onefold_udf::Field],
                ) -> ::std::result::Result<::onefold_udf::Prepared, ::std::string::String> {
                    let (wanted, given, one_to_one, event_time) = Prepared::kinds();
                    let params = ::onefold_udf::params::parse::<#params>(#text, params)?;
                    ::onefold_udf::row::check_inputs(#text, wanted, inputs)?;
                    let outputs = ::onefold_udf::transform::outputs(#text, &[#(#outputs),*], given)?;
                    let prepared = ::onefold_udf::Prepared::map(Prepared(params), outputs);
                    let prepared = if event_time { prepared.event_time() } else { prepared };
                    Ok(if one_to_one { prepared.one_to_one() } else { prepared })
                }
            }
        };
    })
}

/// The first paragraph of a function's documentation, on one line.
fn doc_line(function: &ItemFn) -> String {
    let mut lines = Vec::new();
    for attribute in function.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let syn::Meta::NameValue(meta) = &attribute.meta
            && let syn::Expr::Lit(literal) = &meta.value
            && let syn::Lit::Str(text) = &literal.lit
        {
            let line = text.value().trim().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
    }
    lines.join(" ")
}

/// `T` of a type written `Result<T, …>`.
fn result_of(returned: &Type) -> Option<Type> {
    let Type::Path(path) = returned else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Result")?;
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(inner) => Some(inner.clone()),
        _ => None,
    })
}

/// The type with the lifetime of the columns in its references, also inside `Option` and tuples.
fn with_lifetime(of: &Type) -> Type {
    let mut of = of.clone();
    name_lifetimes(&mut of);
    of
}

fn name_lifetimes(of: &mut Type) {
    match of {
        Type::Reference(reference) => {
            if reference.lifetime.as_ref().is_none_or(|lifetime| lifetime.ident != "static") {
                reference.lifetime = Some(syn::Lifetime::new("'a", reference.and_token.span));
            }
            name_lifetimes(&mut reference.elem);
        }
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(name_lifetimes),
        Type::Path(path) => {
            for segment in &mut path.path.segments {
                if let syn::PathArguments::AngleBracketed(arguments) = &mut segment.arguments {
                    for argument in &mut arguments.args {
                        match argument {
                            syn::GenericArgument::Type(inner) => name_lifetimes(inner),
                            syn::GenericArgument::Lifetime(lifetime) if lifetime.ident != "static" => {
                                *lifetime = syn::Lifetime::new("'a", lifetime.span());
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        _ => {}
    }
}
