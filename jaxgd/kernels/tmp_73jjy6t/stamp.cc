extern const char jaxgd_stamp[];
const char jaxgd_stamp[] = "jaxgd sources 966f94a286949155565651b5f536165397adece532a3ec82c0a9ed190bb5b10e, commands 9fb24c2aa49bf7083c7a4e9477dd64d2932bfef798c2bb2852bc32162ecd8258";
