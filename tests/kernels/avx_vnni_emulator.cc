#include "tests/kernels/avx_vnni_emulator.h"

#if defined(__x86_64__) && defined(__linux__)

#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstring>

namespace fermata::kernels {
namespace {

std::atomic<int> emulated = 0;

// An instruction as the machine encodes it.
struct Instruction {
  int destination;
  int first;               // unsigned bytes
  int second;              // signed bytes: a register, unless `address` is set
  const uint8_t* address;  // in memory
  int length;              // bytes of code
};

// The general registers, in the order of their numbers.
uint64_t GeneralRegister(const ucontext_t& context, int number) {
  static constexpr int kPlaces[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<uint64_t>(context.uc_mcontext.gregs[kPlaces[number]]);
}

int64_t LoadDisplacement(const uint8_t* code) {
  int32_t value;
  std::memcpy(&value, code, sizeof(value));
  return value;
}

// Where an operand in memory is, whose ModRM byte is code[4]; sets the instruction's length.
const uint8_t* AddressOf(const ucontext_t& context, const uint8_t* code, bool high_base, bool high_index, int* length) {
  const int mod = code[4] >> 6;
  const int low = code[4] & 7;
  int at = 5;
  uint64_t address = 0;
  const bool has_index = low == 4;
  const int base = has_index ? code[at] & 7 : low;
  if (has_index) {
    const int index = (code[at] >> 3 & 7) | (high_index ? 8 : 0);
    if (index != 4) address = GeneralRegister(context, index) << (code[at] >> 6);
    ++at;
  }
  const bool no_base = mod == 0 && base == 5;
  if (!no_base) address += GeneralRegister(context, base | (high_base ? 8 : 0));
  if (mod == 1) {
    address += static_cast<int64_t>(static_cast<int8_t>(code[at]));
    at += 1;
  } else if (mod == 2 || no_base) {
    address += LoadDisplacement(code + at);
    at += 4;
  }
  // Without a base and an index: from the next instruction on.
  if (no_base && !has_index) address += reinterpret_cast<uint64_t>(code) + at;
  *length = at;
  return reinterpret_cast<const uint8_t*>(address);
}

// False if it is another instruction: VEX.256.66.0F38.W0 50 /r is the one.
bool Decode(const ucontext_t& context, const uint8_t* code, Instruction* instruction) {
  if (code[0] != 0xC4 || (code[1] & 0x1F) != 2 || (code[2] & 0x87) != 0x05 || code[3] != 0x50) return false;
  // These bits are stored the other way round.
  const bool high_register = (code[1] & 0x80) == 0;
  const bool high_index = (code[1] & 0x40) == 0;
  const bool high_base = (code[1] & 0x20) == 0;
  *instruction = {.destination = (code[4] >> 3 & 7) | (high_register ? 8 : 0),
                  .first = ~(code[2] >> 3) & 0xF,
                  .second = (code[4] & 7) | (high_base ? 8 : 0),
                  .address = nullptr,
                  .length = 5};
  if (code[4] >> 6 != 3) {
    instruction->address = AddressOf(context, code, high_base, high_index, &instruction->length);
  }
  return true;
}

// The vector registers as a signal's frame keeps them: halves apart, and left out while nobody has used them.
class VectorRegisters {
 public:
  explicit VectorRegisters(ucontext_t& context) : area_(reinterpret_cast<uint8_t*>(context.uc_mcontext.fpregs)) {
    uint64_t used;
    std::memcpy(&used, area_ + kUsed, sizeof(used));
    if ((used & 2) == 0) std::memset(area_ + kLow, 0, 256);
    if ((used & 4) == 0) std::memset(area_ + kHigh, 0, 256);
    used |= 6;
    std::memcpy(area_ + kUsed, &used, sizeof(used));
  }

  void Load(int number, void* bytes) const {
    std::memcpy(bytes, area_ + kLow + number * 16, 16);
    std::memcpy(static_cast<uint8_t*>(bytes) + 16, area_ + kHigh + number * 16, 16);
  }

  void Store(int number, const void* bytes) {
    std::memcpy(area_ + kLow + number * 16, bytes, 16);
    std::memcpy(area_ + kHigh + number * 16, static_cast<const uint8_t*>(bytes) + 16, 16);
  }

 private:
  static constexpr int kLow = 160;
  static constexpr int kUsed = 512;
  static constexpr int kHigh = 576;

  uint8_t* area_;
};

void Handle(int signal, siginfo_t*, void* opaque) {
  ucontext_t& context = *static_cast<ucontext_t*>(opaque);
  const uint8_t* code = reinterpret_cast<const uint8_t*>(context.uc_mcontext.gregs[REG_RIP]);
  Instruction instruction;
  if (!Decode(context, code, &instruction)) {
    // It happens again, and then ends the process.
    ::signal(signal, SIG_DFL);
    return;
  }
  VectorRegisters registers(context);
  uint8_t first[32];
  int8_t second[32];
  uint32_t sums[8];
  registers.Load(instruction.first, first);
  if (instruction.address != nullptr) {
    std::memcpy(second, instruction.address, sizeof(second));
  } else {
    registers.Load(instruction.second, second);
  }
  registers.Load(instruction.destination, sums);
  for (int i = 0; i < 32; ++i) sums[i / 4] += static_cast<uint32_t>(int32_t{first[i]} * second[i]);
  registers.Store(instruction.destination, sums);
  context.uc_mcontext.gregs[REG_RIP] += instruction.length;
  ++emulated;
}

}  // namespace

AvxVnniEmulator::AvxVnniEmulator() {
  emulated = 0;
  struct sigaction action = {};
  action.sa_sigaction = Handle;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, &before_);
}

AvxVnniEmulator::~AvxVnniEmulator() { sigaction(SIGILL, &before_, nullptr); }

int AvxVnniEmulator::count() { return emulated; }

}  // namespace fermata::kernels

#endif
