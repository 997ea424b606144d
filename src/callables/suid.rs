//! The `serialVersionUID` of a class, read or computed from its class file.
//!
//! A class that does not declare one has a default that the JVM computes from the class's shape (*Java Object
//! Serialization Specification*, 4.6; `java.io.ObjectStreamClass.computeDefaultSUID`). What this agent sends of such
//! classes must carry the number that the controller's JVM comes to.
//!
//! A class file comes from the controller, and is trusted with nothing: each count in it is 16 bits wide and each
//! item counted takes bytes of the input, nothing recurses, and every access is checked.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use thiserror::Error;

/// Access flags of classes, fields and methods (*JVM Specification*, tables 4.1-B, 4.5-A, 4.6-A and 4.7.6-A).
mod access {
    pub const PUBLIC: u16 = 0x0001;
    pub const PRIVATE: u16 = 0x0002;
    pub const PROTECTED: u16 = 0x0004;
    pub const STATIC: u16 = 0x0008;
    pub const FINAL: u16 = 0x0010;
    pub const SYNCHRONIZED: u16 = 0x0020;
    pub const VOLATILE: u16 = 0x0040;
    pub const TRANSIENT: u16 = 0x0080;
    pub const NATIVE: u16 = 0x0100;
    pub const INTERFACE: u16 = 0x0200;
    pub const ABSTRACT: u16 = 0x0400;
    pub const STRICT: u16 = 0x0800;
    pub const ENUM: u16 = 0x4000;
}

/// A class file that could not be understood. All of these are the sender's fault, or damage on the way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClassFileError {
    /// It does not begin with `ca fe ba be`.
    #[error("not a class file (it must begin with ca fe ba be)")]
    Magic,
    /// It ends inside an item.
    #[error("the class file ends at byte {0}, inside an item")]
    Truncated(usize),
    /// A constant of a kind that no Java version has; what follows it can't be found.
    #[error("constant {index} of the class file is of the unknown kind {tag}")]
    Constant {
        /// Its index in the constant pool.
        index: usize,
        /// Its kind.
        tag: u8,
    },
    /// An index that names no constant, or one of another kind.
    #[error("constant {index} of the class file is not {expected}")]
    Reference {
        /// The index found.
        index: u16,
        /// What there must be.
        expected: &'static str,
    },
    /// The class declares a `serialVersionUID` whose value only its code knows.
    #[error("the class computes its serialVersionUID when it is loaded")]
    NotConstant,
    /// The text that a default `serialVersionUID` is the hash of is out of all proportion.
    #[error("the class's members have {MAX_SHAPE} bytes of names and types or more")]
    TooLarge,
    /// No method of the wanted name returns one of the wanted types.
    #[error("the class has no such method")]
    NoSuchMethod,
}

/// Most bytes that are hashed. Members may share their names and types, so that these are longer than the class file.
const MAX_SHAPE: usize = 16 << 20;

/// What a class file says of a class's serialized form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassUid {
    /// Binary name of the class (modified UTF-8, as in object streams).
    pub name: Vec<u8>,
    /// Its `serialVersionUID`.
    pub uid: i64,
    /// Whether the class declares it. Otherwise it is the default: 0 of an enum or a record.
    pub is_declared: bool,
}

/// Reads the `serialVersionUID` of the class in a class file, which must be a serializable one: the class file alone
/// does not tell whether a superclass is.
///
/// # Errors
/// If this is not a class file, or the class declares a `serialVersionUID` that is not a constant.
pub fn class_uid(class_file: &[u8]) -> Result<ClassUid, ClassFileError> {
    let class = Class::read(class_file)?;
    let name = dotted(class.name);
    let is_enum = class.flags & access::ENUM != 0 || [class.name, class.super_name].contains(&&b"java/lang/Enum"[..]);
    let (uid, is_declared) = if is_enum {
        (0, false)
    } else if let Some(declared) = class.declared_uid()? {
        (declared, true)
    } else if class.is_record {
        (0, false)
    } else {
        (class.default_uid()?, false)
    };
    Ok(ClassUid { name, uid, is_declared })
}

/// Which of these types (field descriptors, such as `Ljava/util/Map;`) a method of this name returns, by its index.
///
/// # Errors
/// If this is not a class file, or no method of the name returns any of them.
pub fn returned(class_file: &[u8], method: &str, types: &[&str]) -> Result<usize, ClassFileError> {
    let class = Class::read(class_file)?;
    let named = |member: &&Member<'_>| member.name == method.as_bytes();
    let returns = |member: &Member<'_>| {
        let parenthesis = member.descriptor.iter().rposition(|byte| *byte == b')')?;
        types.iter().position(|wanted| wanted.as_bytes() == &member.descriptor[parenthesis + 1..])
    };
    class.methods.iter().filter(named).find_map(returns).ok_or(ClassFileError::NoSuchMethod)
}

fn dotted(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'/' { b'.' } else { *byte }).collect()
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ClassFileError> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(ClassFileError::Truncated(self.bytes.len()))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ClassFileError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| ClassFileError::Truncated(self.bytes.len()))
    }

    fn u8(&mut self) -> Result<u8, ClassFileError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, ClassFileError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, ClassFileError> {
        self.array().map(u32::from_be_bytes)
    }
}

#[derive(Clone, Copy)]
enum Constant<'a> {
    Utf8(&'a [u8]),
    Integer(i32),
    Long(i64),
    Class(u16),
    /// What isn't of interest here, and the second half of a long or double.
    Other,
}

/// `CONSTANT_*` (JVM Specification, 4.4), from index 0, which names nothing.
struct Pool<'a>(Vec<Constant<'a>>);

impl<'a> Pool<'a> {
    fn read(input: &mut Input<'a>) -> Result<Self, ClassFileError> {
        let count = usize::from(input.u16()?);
        let mut constants = vec![Constant::Other];
        while constants.len() < count {
            let tag = input.u8()?;
            let constant = match tag {
                1 => {
                    let length = input.u16()?;
                    Constant::Utf8(input.take(usize::from(length))?)
                }
                3 => Constant::Integer(i32::from_be_bytes(input.array()?)),
                5 => Constant::Long(i64::from_be_bytes(input.array()?)),
                7 => Constant::Class(input.u16()?),
                4 | 9..=12 | 17 | 18 => {
                    input.take(4)?;
                    Constant::Other
                }
                6 => {
                    input.take(8)?;
                    Constant::Other
                }
                8 | 16 | 19 | 20 => {
                    input.take(2)?;
                    Constant::Other
                }
                15 => {
                    input.take(3)?;
                    Constant::Other
                }
                _ => return Err(ClassFileError::Constant { index: constants.len(), tag }),
            };
            constants.push(constant);
            if matches!(tag, 5 | 6) {
                constants.push(Constant::Other);
            }
        }
        Ok(Pool(constants))
    }

    fn get(&self, index: u16) -> Constant<'a> {
        self.0.get(usize::from(index)).copied().unwrap_or(Constant::Other)
    }

    fn utf8(&self, index: u16) -> Result<&'a [u8], ClassFileError> {
        match self.get(index) {
            Constant::Utf8(text) => Ok(text),
            _ => Err(ClassFileError::Reference { index, expected: "text" }),
        }
    }

    fn class(&self, index: u16) -> Result<&'a [u8], ClassFileError> {
        match self.get(index) {
            Constant::Class(name) => self.utf8(name),
            _ => Err(ClassFileError::Reference { index, expected: "a class" }),
        }
    }
}

/// A field or a method.
struct Member<'a> {
    flags: u16,
    name: &'a [u8],
    descriptor: &'a [u8],
    /// Index of the constant that a static field begins with.
    constant: Option<u16>,
}

struct Class<'a> {
    pool: Pool<'a>,
    name: &'a [u8],
    super_name: &'a [u8],
    /// `Class.getModifiers`: of a nested class, those that its source declares.
    flags: u16,
    interfaces: Vec<&'a [u8]>,
    fields: Vec<Member<'a>>,
    methods: Vec<Member<'a>>,
    is_record: bool,
}

/// Reads attributes, and gives `each` the name and contents of every one.
fn attributes<'a>(
    input: &mut Input<'a>,
    pool: &Pool<'a>,
    mut each: impl FnMut(&'a [u8], Input<'a>) -> Result<(), ClassFileError>,
) -> Result<(), ClassFileError> {
    for _ in 0..input.u16()? {
        let name = pool.utf8(input.u16()?)?;
        let length = input.u32()?;
        let length = usize::try_from(length).map_err(|_| ClassFileError::Truncated(input.bytes.len()))?;
        each(name, Input { bytes: input.take(length)?, at: 0 })?;
    }
    Ok(())
}

fn members<'a>(input: &mut Input<'a>, pool: &Pool<'a>) -> Result<Vec<Member<'a>>, ClassFileError> {
    let mut members = Vec::new();
    for _ in 0..input.u16()? {
        let flags = input.u16()?;
        let name = pool.utf8(input.u16()?)?;
        let descriptor = pool.utf8(input.u16()?)?;
        let mut constant = None;
        attributes(input, pool, |name, mut contents| {
            if name == b"ConstantValue" {
                constant = Some(contents.u16()?);
            }
            Ok(())
        })?;
        members.push(Member { flags, name, descriptor, constant });
    }
    Ok(members)
}

impl<'a> Class<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ClassFileError> {
        let mut input = Input { bytes, at: 0 };
        if input.u32() != Ok(0xcafe_babe) {
            return Err(ClassFileError::Magic);
        }
        // Minor and major version: all of them have this form.
        input.take(4)?;
        let pool = Pool::read(&mut input)?;
        let mut flags = input.u16()?;
        let name = pool.class(input.u16()?)?;
        let super_name = match input.u16()? {
            // java.lang.Object has none.
            0 => &[][..],
            index => pool.class(index)?,
        };
        let mut interfaces = Vec::new();
        for _ in 0..input.u16()? {
            interfaces.push(pool.class(input.u16()?)?);
        }
        let fields = members(&mut input, &pool)?;
        let methods = members(&mut input, &pool)?;
        let mut is_record = false;
        attributes(&mut input, &pool, |attribute, mut contents| {
            match attribute {
                b"InnerClasses" => {
                    for _ in 0..contents.u16()? {
                        let inner = pool.class(contents.u16()?)?;
                        contents.take(4)?;
                        let declared = contents.u16()?;
                        if inner == name {
                            flags = declared;
                        }
                    }
                }
                b"Record" => is_record = super_name == b"java/lang/Record",
                _ => {}
            }
            Ok(())
        })?;
        Ok(Class { pool, name, super_name, flags, interfaces, fields, methods, is_record })
    }

    /// `ObjectStreamClass.getDeclaredSUID`: a static final field of a type that widens to `long`.
    fn declared_uid(&self) -> Result<Option<i64>, ClassFileError> {
        let wanted = access::STATIC | access::FINAL;
        let is_it = |field: &&Member<'_>| {
            field.name == b"serialVersionUID"
                && field.flags & wanted == wanted
                && matches!(field.descriptor, b"J" | b"I" | b"S" | b"B" | b"C")
        };
        let Some(field) = self.fields.iter().find(is_it) else { return Ok(None) };
        match field.constant.map(|index| self.pool.get(index)) {
            Some(Constant::Long(value)) => Ok(Some(value)),
            Some(Constant::Integer(value)) => Ok(Some(value.into())),
            _ => Err(ClassFileError::NotConstant),
        }
    }

    /// `ObjectStreamClass.computeDefaultSUID`.
    ///
    /// Java sorts names as UTF-16; the order of modified UTF-8 is the same, but for NUL, which no name has.
    fn default_uid(&self) -> Result<i64, ClassFileError> {
        let members = self.fields.iter().chain(&self.methods);
        let size = members.map(|member| member.name.len() + member.descriptor.len()).sum::<usize>()
            + self.interfaces.iter().map(|name| name.len()).sum::<usize>();
        if size >= MAX_SHAPE {
            return Err(ClassFileError::TooLarge);
        }
        let mut out = Vec::new();
        let int = |out: &mut Vec<u8>, flags: u16| out.extend(u32::from(flags).to_be_bytes());

        utf(&mut out, &dotted(self.name));
        let mut flags = self.flags & (access::PUBLIC | access::FINAL | access::INTERFACE | access::ABSTRACT);
        let is_method = |method: &&Member<'_>| !matches!(method.name, b"<init>" | b"<clinit>");
        let mut methods: Vec<&Member<'_>> = self.methods.iter().filter(is_method).collect();
        if flags & access::INTERFACE != 0 {
            // Compilers once differed in this.
            flags &= !access::ABSTRACT;
            if !methods.is_empty() {
                flags |= access::ABSTRACT;
            }
        }
        int(&mut out, flags);

        let mut interfaces: Vec<Vec<u8>> = self.interfaces.iter().map(|name| dotted(name)).collect();
        interfaces.sort();
        for name in interfaces {
            utf(&mut out, &name);
        }

        let mut fields: Vec<&Member<'_>> = self.fields.iter().collect();
        fields.sort_by_key(|field| field.name);
        let field_flags = access::PUBLIC
            | access::PRIVATE
            | access::PROTECTED
            | access::STATIC
            | access::FINAL
            | access::VOLATILE
            | access::TRANSIENT;
        for field in fields {
            let is_private = field.flags & access::PRIVATE != 0;
            if !is_private || field.flags & (access::STATIC | access::TRANSIENT) == 0 {
                utf(&mut out, field.name);
                int(&mut out, field.flags & field_flags);
                utf(&mut out, field.descriptor);
            }
        }

        if self.methods.iter().any(|method| method.name == b"<clinit>") {
            utf(&mut out, b"<clinit>");
            int(&mut out, access::STATIC);
            utf(&mut out, b"()V");
        }

        let mut constructors: Vec<&Member<'_>> =
            self.methods.iter().filter(|method| method.name == b"<init>").collect();
        constructors.sort_by_key(|constructor| constructor.descriptor);
        methods.sort_by_key(|method| (method.name, method.descriptor));
        let method_flags = access::PUBLIC
            | access::PRIVATE
            | access::PROTECTED
            | access::STATIC
            | access::FINAL
            | access::SYNCHRONIZED
            | access::NATIVE
            | access::ABSTRACT
            | access::STRICT;
        for member in constructors.into_iter().chain(methods) {
            if member.flags & access::PRIVATE == 0 {
                utf(&mut out, member.name);
                int(&mut out, member.flags & method_flags);
                utf(&mut out, &dotted(member.descriptor));
            }
        }

        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &out);
        let first = hash.as_ref().iter().take(8);
        Ok(first.rev().fold(0, |uid, byte| uid << 8 | i64::from(*byte)))
    }
}

/// `DataOutput.writeUTF`. A constant of a class file is no longer than its length here can say.
fn utf(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
}

/// A class file with nothing but methods.
#[cfg(test)]
pub(crate) fn class_file_of(name: &str, methods: &[(&str, &str)]) -> Vec<u8> {
    let mut texts = vec![name];
    methods.iter().for_each(|(name, descriptor)| texts.extend([name, descriptor]));
    // Constants: the class, then the texts.
    let mut out = vec![0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 52];
    out.extend((texts.len() as u16 + 2).to_be_bytes());
    out.extend([7, 0, 2]);
    for text in texts {
        out.push(1);
        utf(&mut out, text.replace('.', "/").as_bytes());
    }
    // Public, this class, no superclass, no interfaces, no fields.
    out.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend((methods.len() as u16).to_be_bytes());
    for index in 0..methods.len() as u16 {
        out.extend([0, 1]);
        out.extend((3 + 2 * index).to_be_bytes());
        out.extend((4 + 2 * index).to_be_bytes());
        out.extend([0, 0]);
    }
    out.extend([0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/classes").join(name)
    }

    fn class_file(directory: &str, class: &str) -> Vec<u8> {
        std::fs::read(fixture(directory).join(format!("{class}.class"))).unwrap()
    }

    #[test]
    fn uids_are_those_of_serialver() {
        let expected = std::fs::read_to_string(fixture("uids.txt")).unwrap();
        for line in expected.lines() {
            let [directory, class, uid] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let read = class_uid(&class_file(directory, class));
            if class == "Fixtures$NotConstant" {
                assert_eq!(read, Err(ClassFileError::NotConstant));
                continue;
            }
            let is_declared = class.starts_with("Fixtures$Declared");
            let expected = ClassUid { name: class.as_bytes().to_vec(), uid: uid.parse().unwrap(), is_declared };
            assert_eq!(read, Ok(expected), "{directory} {class}");
        }
        assert_eq!(expected.lines().count(), 28);
    }

    #[test]
    fn methods_tell_what_they_return() {
        let fixtures = class_file("java8", "Fixtures");
        assert_eq!(returned(&fixtures, "compareTo", &["J", "I"]), Ok(1));
        assert_eq!(returned(&fixtures, "compareTo", &["(I)I"]), Err(ClassFileError::NoSuchMethod));
        assert_eq!(returned(&fixtures, "comparedTo", &["I"]), Err(ClassFileError::NoSuchMethod));
        // A bridge method has the name too.
        let methods = [("call", "()Ljava/lang/Object;"), ("odd", ")"), ("call", "(LSet;)LMap;"), ("odd", "LSet;")];
        let built = class_file_of("a.B", &methods);
        assert_eq!(returned(&built, "call", &["LSet;", "LMap;"]), Ok(1));
        assert_eq!(returned(&built, "odd", &["LSet;", "LMap;"]), Err(ClassFileError::NoSuchMethod));
        assert_eq!(class_uid(&built).unwrap().name, b"a.B");
    }

    #[test]
    fn members_that_share_a_long_name_are_not_hashed_for_ever() {
        let long = "x".repeat(60_000);
        let mut class_file = class_file_of("a.B", &[(&long, "()V")]);
        // Count, method, and no attributes.
        let end = class_file.len() - 12;
        let method = class_file[end + 2..end + 10].to_vec();
        class_file.truncate(end);
        class_file.extend(1_000_u16.to_be_bytes());
        class_file.extend(method.repeat(1_000));
        class_file.extend([0, 0]);
        assert_eq!(class_uid(&class_file), Err(ClassFileError::TooLarge));
    }

    #[test]
    fn a_class_file_that_ends_early_is_an_error() {
        let bytes = class_file("java17", "Fixtures$Lambda");
        assert_eq!(class_uid(&bytes[..3]), Err(ClassFileError::Magic));
        for length in 4..bytes.len() {
            assert!(
                matches!(class_uid(&bytes[..length]), Err(ClassFileError::Truncated(at)) if at == length),
                "{length}"
            );
        }
        // Counts that nothing follows.
        let mut counts = bytes[..8].to_vec();
        counts.extend([0xff; 2]);
        assert_eq!(class_uid(&counts), Err(ClassFileError::Truncated(10)));
    }

    proptest! {
        #[test]
        fn damaged_class_files_never_panic(
            directory in prop_oneof![Just("java8"), Just("java17")],
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = class_file(directory, "Fixtures");
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = class_uid(&bytes);
            let _ = returned(&bytes, "compareTo", &["I"]);
        }
    }
}
