//! The class that a JVM is started with: it opens the channel on standard input and output, and first of all sets the
//! counters from which the JVM takes its ids.
//!
//! `agent.jar`'s own main class would do but for that: a second JVM on a channel must not use the ids of the first, which
//! the controller may still hold. No JVM without a compiler takes Java source, so the class file is written here, from its
//! instructions. In Java it would read:
//!
//! ```java
//! public static void main(String[] a) throws Exception {
//!     set(Class.forName("hudson.remoting.Request").getDeclaredField("nextId"), null, a[0]);
//!     OutputStream out = new FileOutputStream(FileDescriptor.out);
//!     System.setOut(System.err);
//!     Channel channel = new ChannelBuilder("channel", Executors.newCachedThreadPool())
//!         .withMode(Channel.Mode.BINARY).withJarCache(new FileSystemJarCache(new File(a[3]), true))
//!         .build(System.in, out);
//!     ((AtomicInteger) get(Channel.class.getDeclaredField("ioId"), channel)).set(parseInt(a[1]));
//!     Object table = get(Channel.class.getDeclaredField("exportedObjects"), channel);
//!     set(table.getClass().getDeclaredField("iota"), table, a[2]);
//!     System.err.println(READY);
//!     channel.join();
//!     System.exit(0);
//! }
//! ```
//!
//! It is in no package: a class of ours in `hudson.remoting` would be refused, because the jar's are signed. It has no
//! branch, so it needs no `StackMapTable`. The three fields have had these names and types since at least remoting 3.0 and
//! have them in 3386 (`Request.nextId`, `Channel.ioId`, `ExportTable.iota`).

/// Name of the class.
pub const CLASS: &str = "InboundAgentSidecar";
/// What it writes to the error output, as a line, once the counters are set: before, it must be sent no command.
pub const READY: &str = "inbound agent sidecar ready";

/// Java 8's class files, which every later JVM takes.
const MAJOR_VERSION: u16 = 52;

/// The constant pool of a class file.
#[derive(Default)]
struct Pool {
    entries: Vec<Vec<u8>>,
}

impl Pool {
    fn add(&mut self, entry: Vec<u8>) -> u16 {
        let at = self.entries.iter().position(|known| *known == entry).unwrap_or_else(|| {
            self.entries.push(entry);
            self.entries.len() - 1
        });
        at as u16 + 1
    }

    fn utf8(&mut self, text: &str) -> u16 {
        let mut entry = vec![1];
        entry.extend((text.len() as u16).to_be_bytes());
        entry.extend(text.as_bytes());
        self.add(entry)
    }

    fn refer(&mut self, tag: u8, indices: &[u16]) -> u16 {
        let indices = indices.iter().flat_map(|index| index.to_be_bytes());
        self.add(std::iter::once(tag).chain(indices).collect())
    }

    fn class(&mut self, name: &str) -> u16 {
        let name = self.utf8(name);
        self.refer(7, &[name])
    }

    fn string(&mut self, text: &str) -> u16 {
        let text = self.utf8(text);
        self.refer(8, &[text])
    }

    /// A field (tag 9) or method (tag 10).
    fn member(&mut self, tag: u8, class: &str, name: &str, descriptor: &str) -> u16 {
        let class = self.class(class);
        let (name, descriptor) = (self.utf8(name), self.utf8(descriptor));
        let name_and_type = self.refer(12, &[name, descriptor]);
        self.refer(tag, &[class, name_and_type])
    }
}

/// Bytecode, instruction by instruction.
struct Code {
    pool: Pool,
    bytes: Vec<u8>,
}

impl Code {
    const ACONST_NULL: u8 = 0x01;
    const ICONST_0: u8 = 0x03;
    const ICONST_1: u8 = 0x04;
    const ALOAD: u8 = 0x19;
    const AALOAD: u8 = 0x32;
    const ASTORE: u8 = 0x3a;
    const DUP: u8 = 0x59;
    const RETURN: u8 = 0xb1;

    fn op(&mut self, op: u8) -> &mut Self {
        self.bytes.push(op);
        self
    }

    fn wide(&mut self, op: u8, index: u16) -> &mut Self {
        self.bytes.push(op);
        self.bytes.extend(index.to_be_bytes());
        self
    }

    fn load(&mut self, local: u8) -> &mut Self {
        self.op(Self::ALOAD).op(local)
    }

    fn store(&mut self, local: u8) -> &mut Self {
        self.op(Self::ASTORE).op(local)
    }

    /// `ldc_w` of a string.
    fn string(&mut self, text: &str) -> &mut Self {
        let index = self.pool.string(text);
        self.wide(0x13, index)
    }

    /// `ldc_w` of a class.
    fn class(&mut self, name: &str) -> &mut Self {
        let index = self.pool.class(name);
        self.wide(0x13, index)
    }

    /// `new`, and a copy for the constructor.
    fn new_object(&mut self, class: &str) -> &mut Self {
        let index = self.pool.class(class);
        self.wide(0xbb, index).op(Self::DUP)
    }

    fn cast(&mut self, class: &str) -> &mut Self {
        let index = self.pool.class(class);
        self.wide(0xc0, index)
    }

    fn get_static(&mut self, class: &str, name: &str, descriptor: &str) -> &mut Self {
        let index = self.pool.member(9, class, name, descriptor);
        self.wide(0xb2, index)
    }

    fn invoke_virtual(&mut self, class: &str, name: &str, descriptor: &str) -> &mut Self {
        let index = self.pool.member(10, class, name, descriptor);
        self.wide(0xb6, index)
    }

    fn invoke_static(&mut self, class: &str, name: &str, descriptor: &str) -> &mut Self {
        let index = self.pool.member(10, class, name, descriptor);
        self.wide(0xb8, index)
    }

    fn construct(&mut self, class: &str, descriptor: &str) -> &mut Self {
        let index = self.pool.member(10, class, "<init>", descriptor);
        self.wide(0xb7, index)
    }

    /// The command line's argument with this index, below 6.
    fn argument(&mut self, index: u8) -> &mut Self {
        self.load(ARGUMENTS).op(Self::ICONST_0 + index).op(Self::AALOAD)
    }

    fn argument_as_int(&mut self, index: u8) -> &mut Self {
        self.argument(index).invoke_static("java/lang/Integer", "parseInt", "(Ljava/lang/String;)I")
    }

    /// From a class on the stack: its field, made accessible and left on the stack.
    fn field(&mut self, name: &str) -> &mut Self {
        let field = "(Ljava/lang/String;)Ljava/lang/reflect/Field;";
        self.string(name).invoke_virtual("java/lang/Class", "getDeclaredField", field);
        self.op(Self::DUP).op(Self::ICONST_1);
        self.invoke_virtual("java/lang/reflect/Field", "setAccessible", "(Z)V")
    }
}

const ARGUMENTS: u8 = 0;
const OUT: u8 = 1;
const CHANNEL: u8 = 2;
const TABLE: u8 = 3;

fn main_code() -> Code {
    let builder = "hudson/remoting/ChannelBuilder";
    let channel = "hudson/remoting/Channel";
    let field = "java/lang/reflect/Field";
    let (get, set_int) = ("(Ljava/lang/Object;)Ljava/lang/Object;", "(Ljava/lang/Object;I)V");
    let mut code = Code { pool: Pool::default(), bytes: Vec::new() };
    code.string("hudson.remoting.Request")
        .invoke_static("java/lang/Class", "forName", "(Ljava/lang/String;)Ljava/lang/Class;")
        .field("nextId")
        .op(Code::ACONST_NULL)
        .argument_as_int(0)
        .invoke_virtual(field, "setInt", set_int);

    // What the JVM's programs print must not get among the commands.
    code.new_object("java/io/FileOutputStream")
        .get_static("java/io/FileDescriptor", "out", "Ljava/io/FileDescriptor;")
        .construct("java/io/FileOutputStream", "(Ljava/io/FileDescriptor;)V")
        .store(OUT)
        .get_static("java/lang/System", "err", "Ljava/io/PrintStream;")
        .invoke_static("java/lang/System", "setOut", "(Ljava/io/PrintStream;)V");

    code.new_object(builder)
        .string("channel")
        .invoke_static(
            "java/util/concurrent/Executors",
            "newCachedThreadPool",
            "()Ljava/util/concurrent/ExecutorService;",
        )
        .construct(builder, "(Ljava/lang/String;Ljava/util/concurrent/ExecutorService;)V")
        .get_static("hudson/remoting/Channel$Mode", "BINARY", "Lhudson/remoting/Channel$Mode;")
        .invoke_virtual(builder, "withMode", "(Lhudson/remoting/Channel$Mode;)Lhudson/remoting/ChannelBuilder;")
        .new_object("hudson/remoting/FileSystemJarCache")
        .new_object("java/io/File")
        .argument(3)
        .construct("java/io/File", "(Ljava/lang/String;)V")
        .op(Code::ICONST_1)
        .construct("hudson/remoting/FileSystemJarCache", "(Ljava/io/File;Z)V")
        .invoke_virtual(builder, "withJarCache", "(Lhudson/remoting/JarCache;)Lhudson/remoting/ChannelBuilder;")
        .get_static("java/lang/System", "in", "Ljava/io/InputStream;")
        .load(OUT)
        .invoke_virtual(builder, "build", "(Ljava/io/InputStream;Ljava/io/OutputStream;)Lhudson/remoting/Channel;")
        .store(CHANNEL);

    code.class(channel)
        .field("ioId")
        .load(CHANNEL)
        .invoke_virtual(field, "get", get)
        .cast("java/util/concurrent/atomic/AtomicInteger")
        .argument_as_int(1)
        .invoke_virtual("java/util/concurrent/atomic/AtomicInteger", "set", "(I)V");

    code.class(channel)
        .field("exportedObjects")
        .load(CHANNEL)
        .invoke_virtual(field, "get", get)
        .store(TABLE)
        .load(TABLE)
        .invoke_virtual("java/lang/Object", "getClass", "()Ljava/lang/Class;")
        .field("iota")
        .load(TABLE)
        .argument_as_int(2)
        .invoke_virtual(field, "setInt", set_int);

    code.get_static("java/lang/System", "err", "Ljava/io/PrintStream;")
        .string(READY)
        .invoke_virtual("java/io/PrintStream", "println", "(Ljava/lang/String;)V")
        .load(CHANNEL)
        .invoke_virtual(channel, "join", "()V")
        .op(Code::ICONST_0)
        .invoke_static("java/lang/System", "exit", "(I)V")
        .op(Code::RETURN);
    code
}

/// The class file.
pub fn class_file() -> Vec<u8> {
    const PUBLIC_FINAL_SUPER: u16 = 0x31;
    const PUBLIC_STATIC: u16 = 0x09;
    const MAX_STACK: u16 = 8;
    const MAX_LOCALS: u16 = 4;

    let Code { mut pool, bytes } = main_code();
    let (this, object) = (pool.class(CLASS), pool.class("java/lang/Object"));
    let (name, descriptor, attribute) = (pool.utf8("main"), pool.utf8("([Ljava/lang/String;)V"), pool.utf8("Code"));

    let mut file = vec![0xca, 0xfe, 0xba, 0xbe, 0, 0];
    let u16s = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| file.extend(value.to_be_bytes()));
    u16s(&mut file, &[MAJOR_VERSION, pool.entries.len() as u16 + 1]);
    pool.entries.iter().for_each(|entry| file.extend(entry));
    // No interfaces, no fields, one method with one attribute.
    u16s(&mut file, &[PUBLIC_FINAL_SUPER, this, object, 0, 0, 1, PUBLIC_STATIC, name, descriptor, 1, attribute]);
    file.extend((bytes.len() as u32 + 12).to_be_bytes());
    u16s(&mut file, &[MAX_STACK, MAX_LOCALS]);
    file.extend((bytes.len() as u32).to_be_bytes());
    file.extend(bytes);
    // No exception table, and no attributes of code and class.
    u16s(&mut file, &[0, 0, 0]);
    file
}
