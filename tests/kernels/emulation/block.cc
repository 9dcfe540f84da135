// The fibers of a block, and the barriers and copies that they wait for.
#include "block.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <vector>

// The sanitizers must know of every switch from one stack to another. This file is compiled without -fsanitize=thread,
// so a define of its own, BLOCK_TSAN, turns on the calls to ThreadSanitizer.
#ifdef BLOCK_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#else
namespace {
void* __tsan_get_current_fiber() { return nullptr; }
void* __tsan_create_fiber(unsigned) { return nullptr; }
void __tsan_destroy_fiber(void*) {}
void __tsan_switch_to_fiber(void*, unsigned) {}
void __tsan_acquire(void*) {}
void __tsan_release(void*) {}
}  // namespace
#endif
#ifdef __SANITIZE_ADDRESS__
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* saved, const void** bottom, size_t* size);
}
#else
namespace {
void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
}  // namespace
#endif

namespace block {
namespace {

// Saves the registers that a function must preserve, stores the stack pointer in *from, and continues on stack `to`.
extern "C" void block_switch_stacks(void** from, void* to);
asm(R"(
.text
.globl block_switch_stacks
.type block_switch_stacks, @function
block_switch_stacks:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

constexpr size_t kStackBytes = 64 << 10;
constexpr int kNumberSaved = 6;
constexpr size_t kMostCopies = 4096;
// A flag of __tsan_switch_to_fiber: the switch does not order accesses, so races between fibers stay visible.
constexpr unsigned kNoOrder = 1;

struct Fiber {
  std::vector<char> stack;
  void* stack_pointer = nullptr;
  void* tsan = nullptr;
  void* asan = nullptr;
  bool done = false;
  bool fenced = false;  // true if fence_before_copies was called since the block's last barrier
  int waits_at = 0;     // the line of the kernel; 0 if the fiber does not wait
};

// A point where threads meet. All must arrive from the same line of the kernel.
struct Meeting {
  int arrived = 0, line = 0;
  unsigned round = 0;
};

struct Warp : Meeting {
  struct Factors {
    float* d;
    const uint32_t *a, *b;
  };
  Factors factors[32];
  float values[32];
};

struct Phase {
  int64_t pending_bytes = 0;
  int parity = 0;
  bool expects = false;
};

struct Copy {
  char* to;
  const void* from;
  int bytes;
  Phase* phase;
  int delay;  // rounds of the scheduler until the bytes arrive
};

struct Block {
  int index;
  bool truncate;
  std::function<void()> body;
  std::mt19937 random;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Meeting all;
  std::deque<Phase> phases;
  std::vector<Copy> copies;
  char* memory = nullptr;
  std::vector<bool> written;
  int current = 0;
  bool progress = false;
  void *scheduler = nullptr, *scheduler_tsan = nullptr, *scheduler_asan = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
};

Block* running = nullptr;

Fiber& current() { return running->fibers[running->current]; }
Warp& current_warp() { return running->warps[running->current / 32]; }

void yield() {
  Fiber& fiber = current();
  __tsan_switch_to_fiber(running->scheduler_tsan, kNoOrder);
  __sanitizer_start_switch_fiber(fiber.done ? nullptr : &fiber.asan, running->scheduler_stack,
                                 running->scheduler_stack_bytes);
  block_switch_stacks(&fiber.stack_pointer, running->scheduler);
  __sanitizer_finish_switch_fiber(fiber.asan, nullptr, nullptr);
}

void start_fiber() {
  __sanitizer_finish_switch_fiber(nullptr, &running->scheduler_stack, &running->scheduler_stack_bytes);
  __tsan_acquire(running);
  running->body();
  __tsan_release(running);
  current().done = true;
  running->progress = true;
  yield();
  std::abort();
}

void wait_until(int line, const std::function<bool()>& holds) {
  Fiber& fiber = current();
  fiber.waits_at = line;
  while (!holds()) yield();
  fiber.waits_at = 0;
}

void meet(Meeting& meeting, int count, int line) {
  if (meeting.arrived > 0 && meeting.line != line) fail(line, "threads of one block wait at different barriers");
  meeting.line = line;
  __tsan_release(&meeting);
  running->progress = true;
  const unsigned round = meeting.round;
  if (++meeting.arrived == count) {
    meeting.arrived = 0;
    ++meeting.round;
  }
  wait_until(line, [&] { return meeting.round != round; });
  __tsan_acquire(&meeting);
}

void end_phase_if_complete(Phase& phase) {
  if (!phase.expects || phase.pending_bytes != 0) return;
  phase.expects = false;
  phase.parity ^= 1;
  running->progress = true;
}

// Finishes the copies whose delay has passed.
void deliver() {
  auto& copies = running->copies;
  const auto arrives = [](Copy& copy) {
    running->progress = true;
    if (copy.delay-- > 0) return false;
    __tsan_acquire(copy.phase);
    std::memcpy(copy.to, copy.from, copy.bytes);
    __tsan_release(copy.phase);
    mark_written(copy.to, copy.bytes);
    copy.phase->pending_bytes -= copy.bytes;
    end_phase_if_complete(*copy.phase);
    return true;
  };
  copies.erase(std::remove_if(copies.begin(), copies.end(), arrives), copies.end());
}

[[noreturn]] void report_deadlock() {
  std::map<int, int> waiting;
  for (const Fiber& fiber : running->fibers) waiting[fiber.done ? -1 : fiber.waits_at] += 1;
  std::fprintf(stderr, "block %d: a wait that never ends:\n", running->index);
  for (const auto& [line, count] : waiting) {
    if (line < 0) {
      std::fprintf(stderr, "  %d threads have ended\n", count);
    } else {
      std::fprintf(stderr, "  %d threads wait at descend.cu:%d\n", count, line);
    }
  }
  std::abort();
}

void prepare(Fiber& fiber) {
  fiber.stack.resize(kStackBytes);
  const auto top = reinterpret_cast<uintptr_t>(fiber.stack.data() + kStackBytes) & ~uintptr_t{15};
  auto* words = reinterpret_cast<void**>(top) - 2;
  *words = reinterpret_cast<void*>(&start_fiber);
  fiber.stack_pointer = words - kNumberSaved;
  fiber.tsan = __tsan_create_fiber(0);
}

void resume(int thread) {
  Fiber& fiber = running->fibers[thread];
  running->current = thread;
  __tsan_switch_to_fiber(fiber.tsan, kNoOrder);
  __sanitizer_start_switch_fiber(&running->scheduler_asan, fiber.stack.data(), fiber.stack.size());
  block_switch_stacks(&running->scheduler, fiber.stack_pointer);
  __sanitizer_finish_switch_fiber(running->scheduler_asan, nullptr, nullptr);
}

size_t offset(const void* address) { return static_cast<const char*>(address) - running->memory; }

}  // namespace

void run(int index, int threads, size_t shared_bytes, unsigned seed, bool truncate, const std::function<void()>& body) {
  Block b{};
  b.index = index;
  b.truncate = truncate;
  b.body = body;
  b.random.seed(seed);
  b.memory = static_cast<char*>(std::aligned_alloc(128, (shared_bytes + 127) / 128 * 128));
  std::memset(b.memory, 0xff, shared_bytes);  // NaN
  b.written.resize(shared_bytes);
  // A reallocation inside a fiber would look to ThreadSanitizer like a race.
  b.copies.reserve(kMostCopies);
  b.fibers.resize(threads);
  b.warps.resize(threads / 32);
  running = &b;
  b.scheduler_tsan = __tsan_get_current_fiber();
  for (Fiber& fiber : b.fibers) prepare(fiber);
  std::vector<int> order(threads);
  for (int t = 0; t < threads; ++t) order[t] = t;
  __tsan_release(&b);
  for (int left = threads; left > 0;) {
    b.progress = false;
    if (seed != 0) std::shuffle(order.begin(), order.end(), b.random);
    for (const int thread : order) {
      if (b.fibers[thread].done) continue;
      resume(thread);
      left -= b.fibers[thread].done;
    }
    deliver();
    if (!b.progress) report_deadlock();
  }
  __tsan_acquire(&b);
  for (Fiber& fiber : b.fibers) __tsan_destroy_fiber(fiber.tsan);
  std::free(b.memory);
  running = nullptr;
}

char* shared_memory() { return running->memory; }

void require_written(const void* from, size_t bytes, int line) {
  const auto first = running->written.begin() + offset(from);
  if (std::find(first, first + bytes, false) != first + bytes) {
    fail(line, "shared memory is read before it was written, or during a copy to it");
  }
}

void mark_written(const void* to, size_t bytes) { std::fill_n(running->written.begin() + offset(to), bytes, true); }

void fail(int line, const char* fault) {
  std::fprintf(stderr, "descend.cu:%d: %s (block %d, thread %d)\n", line, fault, running->index, running->current);
  std::abort();
}

}  // namespace block

int thread_index() { return block::running->current; }
int block_index() { return block::running->index; }

void barrier(int line) {
  block::current().fenced = false;
  block::meet(block::running->all, static_cast<int>(block::running->fibers.size()), line);
}

void warp_barrier(int line) { block::meet(block::current_warp(), 32, line); }

float from_lane_xor(float x, int mask, int line) {
  block::Warp& warp = block::current_warp();
  const int lane = block::running->current % 32;
  warp.values[lane] = x;
  block::meet(warp, 32, line);
  const float other = warp.values[lane ^ mask];
  block::meet(warp, 32, line);
  return other;
}

// Every product is exact in double. The sum of d and 8 products is exact too, unless their exponents differ widely. An
// exact sum is rounded once, to float.
static void multiply_add_of(const block::Warp& warp) {
  float a[16][8], b[8][8];
  const auto tf32 = [](uint32_t word) { return of_bits(word & 0xffffe000u); };
  for (int lane = 0; lane < 32; ++lane) {
    const auto& factors = warp.factors[lane];
    const int row = lane / 4, col = lane % 4;
    for (int i = 0; i < 4; ++i) a[row + 8 * (i % 2)][col + 4 * (i / 2)] = tf32(factors.a[i]);
    for (int i = 0; i < 2; ++i) b[col + 4 * i][row] = tf32(factors.b[i]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      float& d = warp.factors[lane].d[i];
      double sum = d;
      for (int k = 0; k < 8; ++k) {
        sum += static_cast<double>(a[lane / 4 + 8 * (i / 2)][k]) * b[k][2 * (lane % 4) + i % 2];
      }
      d = static_cast<float>(sum);
      if (block::running->truncate && std::fabs(d) > std::fabs(sum)) d = of_bits(bits(d) - 1);
    }
  }
}

void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line) {
  block::Warp& warp = block::current_warp();
  warp.factors[block::running->current % 32] = {d, a, b};
  // The last lane to arrive computes the product for the whole warp.
  if (warp.arrived == 31) multiply_add_of(warp);
  block::meet(warp, 32, line);
}

void arrivals_init(Arrivals* arrivals) {
  arrivals->number = block::running->phases.size();
  block::running->phases.emplace_back();
  block::mark_written(arrivals, sizeof(Arrivals));
}

static block::Phase& phase_of(const Arrivals* arrivals, int line) {
  block::require_written(arrivals, sizeof(Arrivals), line);
  return block::running->phases[arrivals->number];
}

void arrivals_expect(Arrivals* arrivals, int bytes, int line) {
  block::Phase& phase = phase_of(arrivals, line);
  if (phase.expects) block::fail(line, "a phase starts before the previous one has ended");
  phase.pending_bytes += bytes;
  phase.expects = true;
  block::end_phase_if_complete(phase);
}

void arrivals_wait(Arrivals* arrivals, int parity, int line) {
  block::Phase& phase = phase_of(arrivals, line);
  block::wait_until(line, [&] { return phase.parity != parity; });
  __tsan_acquire(&phase);
}

void fence_before_copies() { block::current().fenced = true; }

void bulk_copy(void* to, const void* from, int bytes, Arrivals* arrivals, int line) {
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (!is_aligned(to) || !is_aligned(from) || bytes % 16 != 0) block::fail(line, "a copy is not aligned to 16 bytes");
  if (!block::current().fenced) block::fail(line, "a copy has no fence after the last barrier");
  if (block::running->copies.size() == block::kMostCopies) block::fail(line, "too many copies are in flight");
  block::Phase& phase = phase_of(arrivals, line);
  const auto first = block::running->written.begin() + block::offset(to);
  std::fill_n(first, bytes, false);
  std::memset(to, 0xee, bytes);  // a thread that still reads the old bytes must get wrong results
  __tsan_release(&phase);
  const int delay = static_cast<int>(block::running->random() % 7);
  block::running->copies.push_back({static_cast<char*>(to), from, bytes, &phase, delay});
}
