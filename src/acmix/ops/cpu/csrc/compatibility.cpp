// What vectors call of libstdc++ since GCC 11, for systems whose libstdc++ is older than that.
#include <new>

#if defined(__GLIBCXX__)
namespace std {
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std
#endif
